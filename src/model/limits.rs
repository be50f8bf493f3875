//! How many connections one client may have to a Service, as an annotation says it.

use std::num::NonZeroU32;

/// The greatest value of each.
const MOST: u32 = 1_000_000;

/// New connections a second of a client that has only its open ones limited: with more of them the kernel could not
/// forget refused ones as fast as they come (see [`nft_table::Statement::ConnectionsOver`]).
const WITH_OPEN: u32 = 500;

/// `new-per-second=20, burst=40, open=100`, at least one of the first and the last. What a client is allowed, on each
/// node and for each port and family of a Service by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// New connections a second, in the long run.
    pub new_per_second: u32,
    /// New connections at once, at least 1.
    pub burst: u32,
    /// Open connections.
    pub open: Option<u32>,
}

impl Limits {
    /// Reads an annotation; the error says what is wrong with it.
    ///
    /// # Errors
    /// A part is unknown, twice there or no number from 1 to 1,000,000; or nothing is limited.
    pub fn parse(text: &str) -> Result<Limits, String> {
        let [mut new_per_second, mut burst, mut open] = [None; 3];
        for part in text.split(',') {
            let (name, value) = part.split_once('=').ok_or_else(|| no_part(part))?;
            let field = match name.trim() {
                "new-per-second" => &mut new_per_second,
                "burst" => &mut burst,
                "open" => &mut open,
                _ => return Err(no_part(part)),
            };
            let number = value.trim().parse().ok().map(NonZeroU32::get).filter(|n| *n <= MOST);
            let number = number
                .ok_or_else(|| format!("{:?} is no number from 1 to {MOST}", value.trim()))?;
            if field.replace(number).is_some() {
                return Err(format!("{:?} is there twice", name.trim()));
            }
        }
        let (rate, at_once) = match (new_per_second, open) {
            (Some(rate), _) => (rate, rate),
            (None, Some(open)) => (WITH_OPEN, open.max(WITH_OPEN)),
            (None, None) => return Err("neither new-per-second nor open".to_owned()),
        };
        Ok(Limits { new_per_second: rate, burst: burst.unwrap_or(at_once), open })
    }
}

fn no_part(part: &str) -> String {
    format!("{:?} is none of new-per-second=N, burst=N, open=N", part.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_follows_from_the_rest() {
        let limits = |new_per_second, burst, open| Ok(Limits { new_per_second, burst, open });
        for (text, expected) in [
            ("new-per-second=20", limits(20, 20, None)),
            ("new-per-second=20,burst=1", limits(20, 1, None)),
            (" open = 100 , new-per-second = 20, burst=40 ", limits(20, 40, Some(100))),
            ("open=100", limits(500, 500, Some(100))),
            ("open=1000", limits(500, 1000, Some(1000))),
            ("open=1,burst=5", limits(500, 5, Some(1))),
        ] {
            assert_eq!(Limits::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_an_error() {
        for (text, expected) in [
            ("", "\"\" is none of new-per-second=N, burst=N, open=N"),
            ("20", "\"20\" is none of new-per-second=N, burst=N, open=N"),
            ("rate=20", "\"rate=20\" is none of new-per-second=N, burst=N, open=N"),
            ("burst=20", "neither new-per-second nor open"),
            ("open=0", "\"0\" is no number from 1 to 1000000"),
            ("open=1000001", "\"1000001\" is no number from 1 to 1000000"),
            ("open=-1", "\"-1\" is no number from 1 to 1000000"),
            ("new-per-second=20/minute", "\"20/minute\" is no number from 1 to 1000000"),
            ("open=1,open=2", "\"open\" is there twice"),
        ] {
            assert_eq!(Limits::parse(text), Err(expected.to_owned()), "{text}");
        }
    }
}
