//! Files that are watched, on real directories with inotify.

mod config;
mod manifests;
