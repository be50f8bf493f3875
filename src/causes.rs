//! An error with all that is behind it.

use std::error::Error;

/// What an error says, and what each of its causes adds to that: the top one alone may say no more than "client error
/// (Connect)", and others say already what their cause is.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |error| (*error).source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn each_cause_is_said_once() {
        let said = |error: anyhow::Error| with_causes(error.as_ref());
        assert_eq!(
            said(anyhow!("refused").context("open").context("start")),
            "start: open: refused"
        );
        assert_eq!(said(anyhow!("refused").context("open: refused").context("start")), {
            "start: open: refused"
        });
    }
}
