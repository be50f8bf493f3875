//! A directory of manifests, one object per file, kept like a cluster's state.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// The directory; gone when dropped.
pub struct Manifests {
    directory: TempDir,
}

impl Default for Manifests {
    fn default() -> Manifests {
        Manifests { directory: TempDir::new().expect("a temporary directory") }
    }
}

impl Manifests {
    /// No object yet.
    pub fn new() -> Manifests {
        Manifests::default()
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Adds objects, or replaces those of the same kind and name. A file appears at once.
    pub fn apply(&self, objects: impl IntoIterator<Item = Value>) {
        // Of two objects with one name the later counts.
        let objects: BTreeMap<String, Value> =
            objects.into_iter().map(|object| (file_of(&object), object)).collect();
        for (file, object) in objects {
            self.write(&file, &object.to_string());
        }
    }

    /// Writes a file of any content, as `shop.yaml`.
    pub fn write(&self, file: &str, text: &str) {
        let draft = self.path().join(".draft");
        fs::write(&draft, text).expect("write a manifest");
        fs::rename(draft, self.path().join(file)).expect("rename a manifest");
    }

    /// Deletes objects, as far as they are there.
    pub fn delete_if_there(&self, objects: impl IntoIterator<Item = Value>) {
        for object in objects {
            let _ = fs::remove_file(self.path().join(file_of(&object)));
        }
    }

    /// Deletes objects that were applied.
    pub fn delete(&self, objects: impl IntoIterator<Item = Value>) {
        for object in objects {
            fs::remove_file(self.path().join(file_of(&object))).expect("delete a manifest");
        }
    }
}

fn file_of(object: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("none").to_lowercase();
    let metadata = &object["metadata"];
    format!(
        "{}.{}.{}.json",
        word(&object["kind"]),
        word(&metadata["namespace"]),
        word(&metadata["name"])
    )
}
