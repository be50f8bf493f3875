//! The directory: which manifests are there, which have changed, by which symbolic links.
//!
//! A ConfigMap volume is a directory of links (`web.yaml` -> `..data/web.yaml`) through one that is
//! swapped (`..data` -> `..2026_01_02/`). What a link leads to, and where on the way something could be
//! swapped, is a [`Trail`]; the watch follows all of them.

use super::split::Format;
use foldhash::fast::FixedState;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::{self, Metadata, OpenOptions};
use std::hash::BuildHasher;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows in one path.
const MOST_LINKS: usize = 40;

/// The way from a path to what it leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// The links on the way, and what is missing, if the way ends there; each as a path without links
    /// except for the last component.
    pub links: Vec<PathBuf>,
    /// What the path leads to, without links; `None` if that does not exist.
    pub target: Option<PathBuf>,
}

impl Trail {
    /// Follows an absolute path.
    pub fn of(path: &Path) -> Trail {
        let mut trail = Trail::default();
        let mut rest: VecDeque<OsString> = components(path);
        let mut here = PathBuf::from("/");
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                here.pop();
                continue;
            }
            here.push(name);
            let Ok(metadata) = fs::symlink_metadata(&here) else {
                trail.links.push(here);
                return trail;
            };
            if metadata.is_symlink() {
                let Ok(target) = fs::read_link(&here) else { return trail };
                trail.links.push(here.clone());
                if trail.links.len() > MOST_LINKS {
                    return trail;
                }
                if target.is_absolute() {
                    here = PathBuf::from("/");
                } else {
                    here.pop();
                }
                let mut target = components(&target);
                target.append(&mut rest);
                rest = target;
            }
        }
        trail.target = Some(here);
        trail
    }

    /// Where the way ends, be there something or not.
    pub fn end(&self) -> Option<&Path> {
        self.target.as_ref().or(self.links.last()).map(PathBuf::as_path)
    }
}

/// The names in a path, `..` among them.
fn components(path: &Path) -> VecDeque<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(name).collect()
}

/// What tells the versions of a file apart without reading it: a hash of device, inode, size and
/// times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signature(u64);

impl Signature {
    fn of(file: &Metadata) -> Signature {
        let times = (file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec());
        Signature(FixedState::default().hash_one((file.dev(), file.ino(), file.size(), times)))
    }
}

/// What became of a file.
#[derive(Debug)]
pub enum News {
    /// It was read.
    Content(Vec<u8>),
    Unreadable(io::Error),
    Gone,
}

/// A directory of manifests, as it was seen last.
#[derive(Debug)]
pub struct Directory {
    /// Absolute, as it was given.
    path: PathBuf,
    trail: Trail,
    /// The manifests by name; those that could not be read have no signature.
    files: BTreeMap<String, Option<Signature>>,
    /// The trails of those that are links.
    linked: BTreeMap<String, Trail>,
}

impl Directory {
    /// A directory of which nothing has been seen yet. The path is absolute.
    pub fn new(path: PathBuf) -> Self {
        Directory { path, trail: Trail::default(), files: BTreeMap::new(), linked: BTreeMap::new() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The way to the directory, when it was last followed.
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// The ways to those manifests that are links.
    pub fn linked(&self) -> &BTreeMap<String, Trail> {
        &self.linked
    }

    /// Follows the path to the directory again. An error if it leads to no directory.
    pub fn follow(&mut self) -> io::Result<()> {
        self.trail = Trail::of(&self.path);
        if fs::metadata(&self.path)?.is_dir() {
            Ok(())
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    /// The names of all manifests that are or were there.
    pub fn names(&self) -> io::Result<BTreeSet<String>> {
        let mut names: BTreeSet<String> = self.files.keys().cloned().collect();
        for entry in fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string()
                && Format::of(&name).is_some()
            {
                names.insert(name);
            }
        }
        Ok(names)
    }

    /// Looks at a manifest; `None` if nothing is new. With `always` it is read even if it looks the same:
    /// after a second change within one tick of the kernel's clock it does.
    pub fn examine(&mut self, name: &str, always: bool) -> Option<News> {
        let path = self.path.join(name);
        let linked = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink());
        if linked {
            self.linked.insert(name.to_owned(), Trail::of(&path));
        } else {
            self.linked.remove(name);
        }
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => self.gone(name),
            Ok(metadata) => {
                let known = self.files.get(name).copied().flatten();
                if !always && known == Some(Signature::of(&metadata)) {
                    return None;
                }
                match read(&path) {
                    Ok((bytes, signature)) => {
                        self.files.insert(name.to_owned(), Some(signature));
                        Some(News::Content(bytes))
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => self.gone(name),
                    Err(error) => self.unreadable(name, error),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.gone(name),
            Err(error) => self.unreadable(name, error),
        }
    }

    /// Reads a manifest, whatever is known of it.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        read(&self.path.join(name)).map(|(bytes, _)| bytes)
    }

    fn gone(&mut self, name: &str) -> Option<News> {
        self.files.remove(name).map(|_| News::Gone)
    }

    fn unreadable(&mut self, name: &str, error: io::Error) -> Option<News> {
        self.files.insert(name.to_owned(), None);
        Some(News::Unreadable(error))
    }
}

/// Reads a regular file; others (a named pipe, say) would block.
fn read(path: &Path) -> io::Result<(Vec<u8>, Signature)> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.size()).unwrap_or(0) + 1);
    file.read_to_end(&mut bytes)?;
    Ok((bytes, Signature::of(&metadata)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn trails() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("v1")).unwrap();
        fs::write(root.join("v1/web.yaml"), "").unwrap();
        symlink("v1", root.join("..data")).unwrap();
        symlink("..data/web.yaml", root.join("web.yaml")).unwrap();
        symlink(root.join("v1/../web.yaml"), root.join("other.yaml")).unwrap();
        symlink("nowhere", root.join("broken.yaml")).unwrap();
        symlink("loop.yaml", root.join("loop.yaml")).unwrap();

        let trail = |name: &str| Trail::of(&root.join(name));
        let links = |names: &[&str]| names.iter().map(|name| root.join(name)).collect::<Vec<_>>();
        let target = Some(root.join("v1/web.yaml"));
        let direct = Trail { links: vec![], target: target.clone() };
        assert_eq!(trail("v1/web.yaml"), direct);
        let linked = Trail { links: links(&["web.yaml", "..data"]), target: target.clone() };
        assert_eq!(trail("web.yaml"), linked);
        let twice = Trail { links: links(&["other.yaml", "web.yaml", "..data"]), target };
        assert_eq!(trail("other.yaml"), twice);
        assert_eq!(
            trail("broken.yaml"),
            Trail { links: links(&["broken.yaml", "nowhere"]), target: None }
        );
        assert_eq!(trail("loop.yaml").target, None);
    }

    #[test]
    fn only_news_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut directory = Directory::new(dir.path().to_owned());
        directory.follow().unwrap();
        assert!(directory.examine("a.yaml", false).is_none());
        fs::write(dir.path().join("a.yaml"), "1").unwrap();
        fs::write(dir.path().join("b.txt"), "1").unwrap();
        fs::create_dir(dir.path().join("c.yaml")).unwrap();
        assert_eq!(
            directory.names().unwrap().into_iter().collect::<Vec<_>>(),
            ["a.yaml", "c.yaml"]
        );
        assert!(matches!(directory.examine("a.yaml", false), Some(News::Content(_))));
        assert!(directory.examine("a.yaml", false).is_none());
        assert!(matches!(directory.examine("a.yaml", true), Some(News::Content(_))));
        assert!(directory.examine("c.yaml", false).is_none());
        fs::remove_file(dir.path().join("a.yaml")).unwrap();
        assert!(directory.names().unwrap().contains("a.yaml"), "known ones are named too");
        assert!(matches!(directory.examine("a.yaml", false), Some(News::Gone)));
        assert!(directory.examine("a.yaml", false).is_none());
    }

    #[test]
    fn a_named_pipe_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe.yaml");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut directory = Directory::new(dir.path().to_owned());
        assert!(matches!(directory.examine("pipe.yaml", false), Some(News::Unreadable(_))));
    }
}
