//! What a test says when this machine cannot run it.

use std::io::Write;

/// Says why a test is skipped, which is a failure where the environment has `CI`.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "a test cannot run in CI: {why}");
    tell(why);
}

/// Says why a test is skipped that may be missing in CI too.
pub fn tell(why: &str) {
    // The macros' output is kept from the reader when a test passes.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
