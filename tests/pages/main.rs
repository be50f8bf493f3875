//! The pages: every link in them leads somewhere, and every file and folder that they name is there.

use std::fs;
use std::path::{Path, PathBuf};

/// Kinds of files that pages name.
const NAMED: [&str; 8] = [".rs", ".md", ".yaml", ".nft", ".toml", ".conf", ".service", ".json"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files and folders of the tree below a folder, from the root on; folders end in `/`.
fn tree(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let is_folder = entry.file_type().unwrap().is_dir();
        let name = entry.file_name();
        if is_folder && (name == "target" || name == ".git") {
            continue;
        }
        let end = if is_folder { "/" } else { "" };
        found.push(format!("/{}{end}", path.strip_prefix(root()).unwrap().display()));
        if is_folder {
            tree(&path, found);
        }
    }
}

/// The pages, with their text outside of code blocks.
fn pages(tree: &[String]) -> Vec<(PathBuf, String)> {
    let pages = tree.iter().filter(|path| path.ends_with(".md"));
    pages
        .map(|page| {
            let path = root().join(&page[1..]);
            let text = fs::read_to_string(&path).unwrap();
            let prose = text.split("```").step_by(2).collect();
            (path, prose)
        })
        .collect()
}

/// Where the links of a page lead.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(link, _)| link))
}

/// The anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    heading.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

#[test]
fn links_lead_somewhere() {
    let mut files = Vec::new();
    tree(root(), &mut files);
    let pages = pages(&files);
    let mut count = 0;
    for (page, text) in &pages {
        for link in links(text).filter(|link| !link.contains("://")) {
            let (file, wanted) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                _ => page.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{}: nothing is at {link}", page.display());
            if !wanted.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let is_wanted = |line: &str| {
                    line.starts_with('#') && anchor(line.trim_start_matches('#')) == wanted
                };
                assert!(text.lines().any(is_wanted), "{}: no heading {link}", page.display());
            }
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn files_that_pages_name_are_there() {
    let mut files = Vec::new();
    tree(root(), &mut files);
    let (mut named, mut missing) = (0, Vec::new());
    for (page, text) in pages(&files) {
        for name in text.split('`').skip(1).step_by(2) {
            let is_path = name.contains('/')
                && !name.starts_with('/')
                && !name.contains([' ', '*', ':', '=', '{', '<', '$', '~'])
                && (name.ends_with('/') || NAMED.iter().any(|end| name.ends_with(end)));
            if !is_path {
                continue;
            }
            named += 1;
            // By the end of its path: a page on a part need not say where the part is.
            let end = format!("/{name}");
            if !files.iter().any(|file| file.ends_with(&end)) {
                missing.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(named > 50, "{named}");
}
