//! The name of this node.

use super::ConfigError;

/// kube-proxy's rule: the override, else the host name; trimmed, lower case, not empty.
/// `host` is asked only where there is no override.
pub(super) fn node_name(
    name_override: &str,
    host: impl FnOnce() -> std::io::Result<String>,
) -> Result<String, ConfigError> {
    match name_override {
        "" => normal(&host().map_err(ConfigError::HostName)?),
        name => normal(name),
    }
}

/// A name as the Node object has it.
pub(super) fn normal(name: &str) -> Result<String, ConfigError> {
    match name.trim().to_lowercase() {
        name if name.is_empty() => Err(ConfigError::EmptyHostName),
        name => Ok(name),
    }
}

/// The host name of the kernel, as `uname -n` prints it.
pub(super) fn os_host_name() -> std::io::Result<String> {
    // HOST_NAME_MAX of Linux is 64.
    let mut buffer = [0u8; 65];
    // SAFETY: the pointer and the length describe `buffer`.
    let result = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len()) };
    if result != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let name = buffer.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_trimmed_and_lower_case() {
        for (name_override, host, expected) in [
            ("", "Node-1", Some("node-1")),
            ("", " n1\n", Some("n1")),
            (" Node.Example ", "n1", Some("node.example")),
            ("  ", "n1", None),
            ("", "", None),
        ] {
            let name = node_name(name_override, || Ok(host.to_owned())).ok();
            assert_eq!(name.as_deref(), expected, "{name_override:?} {host:?}");
        }
    }

    #[test]
    fn the_host_has_a_name() {
        assert!(!os_host_name().unwrap().is_empty());
    }
}
