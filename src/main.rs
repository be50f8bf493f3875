//! The program: reads the command line and hands over to [`kube_proxy::app`].

use kube_proxy::causes::with_causes;
use kube_proxy::config::{Action, Config, Flags};
use kube_proxy::{app, cli};
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if cli::is_command(&arguments) {
        return cli::run(&arguments);
    }
    let flags = match Flags::read(arguments) {
        Ok(flags) => flags,
        Err(error) if error.use_stderr() => {
            // Go's programs exit with 1 here, not with 2.
            let _ = error.print();
            return ExitCode::FAILURE;
        }
        Err(help) => help.exit(),
    };
    if let Some(text) = flags.version_text() {
        println!("{text}");
        return ExitCode::SUCCESS;
    }
    let result = run(&flags);
    app::logging::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kube-proxy: {}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> anyhow::Result<()> {
    let config = Config::load(flags)?;
    let set_filter = app::logging::init(&config.logging)?;
    // Cleaning up takes no more from the configuration than what is to stay.
    if config.action != Action::Cleanup {
        flags.without_effect().iter().for_each(|line| tracing::info!("{line}"));
        config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    }
    match &config.action {
        Action::WriteConfig(path) => {
            config.write_to(path)?;
            tracing::info!("wrote the configuration to {}", path.display());
            let lost = config.lost_in_a_file().join(", ");
            if !lost.is_empty() {
                tracing::warn!(
                    "a file cannot say what flags said of {lost}: it stands for the default there"
                );
            }
            Ok(())
        }
        Action::Cleanup => app::cleanup(&config),
        Action::InitOnly => app::init(&config),
        Action::Run => app::run(config, flags.in_effect().clone(), set_filter),
    }
}
