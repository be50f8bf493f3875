//! Configuration files and command lines.

use kube_proxy::app::settings::sync_options;
use kube_proxy::config::{Config, Flags, LoadedFile};
use std::sync::OnceLock;

/// Up to a NUL it is a command line, one argument per line, after that a file. What comes of both is an error that can
/// be printed, or a configuration that means the same when it is written and read again.
pub fn check(bytes: &[u8]) {
    let (line, file) = match bytes.iter().position(|byte| *byte == 0) {
        Some(end) => (&bytes[..end], Some(&bytes[end + 1..])),
        None => (bytes, None),
    };
    let line = String::from_utf8_lossy(line);
    let mut arguments = line.lines().filter(|argument| !argument.is_empty()).peekable();
    let flags = match arguments.peek() {
        None => Ok(no_flags()),
        Some(_) => Flags::read(["kube-proxy"].into_iter().chain(arguments)),
    };
    let flags = match flags {
        Ok(flags) => flags,
        Err(error) => return drop(error.to_string()),
    };
    let _ = (flags.version_text(), flags.without_effect(), flags.in_effect());
    let config = match resolve(&flags, file) {
        Ok(config) => config,
        Err(error) => return drop(error),
    };
    sync_options(&config);
    config.configz();
    let written = config.to_yaml();
    if !config.lost_in_a_file().is_empty() {
        return;
    }
    let again = resolve(&no_flags(), Some(written.as_bytes()));
    let again = again.unwrap_or_else(|error| panic!("{error}\n{written}"));
    assert_eq!(again.to_yaml(), written);
    assert_eq!(again.document.mode, config.document.mode);
    assert_eq!(
        (&again.detect_local, &again.node_port_addresses, again.masquerade_all),
        (&config.detect_local, &config.node_port_addresses, config.masquerade_all)
    );
    assert_eq!(
        (again.sync_period, again.min_sync_period, &again.conntrack),
        (config.sync_period, config.min_sync_period, &config.conntrack)
    );
    assert_eq!(
        (again.healthz_bind_address, again.metrics_bind_address, again.node_ip_override),
        (config.healthz_bind_address, config.metrics_bind_address, config.node_ip_override)
    );
}

/// An empty command line. To read it takes longer than everything else.
fn no_flags() -> Flags {
    static FLAGS: OnceLock<Flags> = OnceLock::new();
    FLAGS.get_or_init(|| Flags::read(["kube-proxy"]).expect("none is required")).clone()
}

fn resolve(flags: &Flags, file: Option<&[u8]>) -> Result<Config, String> {
    let file = file.map(|content| LoadedFile { path: "file".into(), content: content.to_vec() });
    Config::resolve(flags, file, || Ok("host".to_owned())).map_err(|error| error.to_string())
}
