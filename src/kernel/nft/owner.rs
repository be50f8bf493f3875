//! Which process owns a table.

use std::fs;

/// `NETLINK_NETFILTER` of `linux/netlink.h`.
const NETFILTER: &str = "12";

/// Says as much as can be known about the owner of a socket: its process, where that can be seen from here.
pub fn describe_owner(port: u32) -> String {
    let process = inode(port).and_then(|inode| process(&inode));
    process
        .unwrap_or_else(|| format!("a process that cannot be seen from here (netlink port {port})"))
}

/// The inode of the socket with this number, of this network namespace.
fn inode(port: u32) -> Option<String> {
    // Columns: sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
    let sockets = fs::read_to_string("/proc/net/netlink").ok()?;
    let mut sockets = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = sockets.find(|columns| {
        columns.get(1) == Some(&NETFILTER) && columns.get(2) == Some(&port.to_string().as_str())
    });
    ours?.get(9).map(|inode| (*inode).to_owned())
}

/// The process that has the socket open.
fn process(inode: &str) -> Option<String> {
    let socket = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let has_it = |file: &fs::DirEntry| {
            fs::read_link(file.path()).is_ok_and(|target| target.to_str() == Some(&socket))
        };
        if files.flatten().any(|file| has_it(&file)) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let pid = process.file_name();
            return Some(format!("process {} ({})", pid.display(), name.trim()));
        }
    }
    None
}
