//! Durations as Go writes them (`metav1.Duration`): `30s`, `1m0s`, `1h30m`, `250ms`.
//!
//! Reads what Go's `time.ParseDuration` reads and prints what `time.Duration.String` prints, so a
//! configuration file that we write looks like one that kube-proxy writes. Values are signed
//! 64-bit nanoseconds; whether a negative one makes sense is for validation to say.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000 * MICROSECOND;
const SECOND: u64 = 1_000 * MILLISECOND;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// A Go duration: signed nanoseconds, at most about 292 years either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(i64);

impl GoDuration {
    pub const ZERO: GoDuration = GoDuration(0);

    pub const fn from_nanos(nanos: i64) -> Self {
        GoDuration(nanos)
    }

    pub const fn from_secs(secs: i64) -> Self {
        GoDuration(secs * SECOND as i64)
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// As an unsigned duration; a negative one becomes zero.
    pub fn to_std(self) -> Duration {
        Duration::from_nanos(self.0.max(0) as u64)
    }
}

/// Why a text is not a Go duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error(
        "invalid duration {0:?}: a number with a unit is expected, such as 30s, 1m30s or 250ms"
    )]
    Syntax(String),
    #[error("missing unit in duration {0:?}: use ns, us, ms, s, m or h")]
    NoUnit(String),
    #[error("unknown unit {unit:?} in duration {text:?}: use ns, us, ms, s, m or h")]
    Unit { text: String, unit: String },
    #[error("duration {0:?} is too long: at most about 2562047h")]
    Range(String),
}

/// Takes digits off the front of a text.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn unit_nanos(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        // The micro sign (U+00B5) and the Greek letter mu (U+03BC) both occur.
        "us" | "\u{b5}s" | "\u{3bc}s" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => return None,
    })
}

/// One part, such as `1.5h`: its nanoseconds and the rest of the text.
fn part<'a>(text: &'a str, whole: &str) -> Result<(u64, &'a str), DurationError> {
    let range = || DurationError::Range(whole.to_owned());
    let (integer, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    if integer.is_empty() && fraction.is_empty() {
        return Err(DurationError::Syntax(whole.to_owned()));
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    if unit.is_empty() {
        return Err(DurationError::NoUnit(whole.to_owned()));
    }
    let scale = unit_nanos(unit)
        .ok_or_else(|| DurationError::Unit { text: whole.to_owned(), unit: unit.to_owned() })?;
    let integer: u64 = match integer {
        "" => 0,
        digits => digits.parse().map_err(|_| range())?,
    };
    // 18 digits of a fraction of an hour are far below a nanosecond.
    let fraction = &fraction[..fraction.len().min(18)];
    let fraction_nanos = match fraction {
        "" => 0,
        digits => {
            let value: u128 = digits.parse().map_err(|_| range())?;
            (value * u128::from(scale) / 10u128.pow(digits.len() as u32)) as u64
        }
    };
    let nanos = integer.checked_mul(scale).and_then(|n| n.checked_add(fraction_nanos));
    Ok((nanos.ok_or_else(range)?, rest))
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(GoDuration::ZERO);
        }
        if rest.is_empty() {
            return Err(DurationError::Syntax(text.to_owned()));
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (nanos, after) = part(rest, text)?;
            total =
                total.checked_add(nanos).ok_or_else(|| DurationError::Range(text.to_owned()))?;
            rest = after;
        }
        let signed =
            if negative { 0i64.checked_sub_unsigned(total) } else { i64::try_from(total).ok() };
        signed.map(GoDuration).ok_or_else(|| DurationError::Range(text.to_owned()))
    }
}

/// `value` in units of `scale`, with as many decimals as it needs.
fn decimal(f: &mut fmt::Formatter<'_>, value: u64, scale: u64, unit: &str) -> fmt::Result {
    let (integer, fraction) = (value / scale, value % scale);
    if fraction == 0 {
        return write!(f, "{integer}{unit}");
    }
    let width = scale.ilog10() as usize;
    let fraction = format!("{fraction:0width$}");
    write!(f, "{integer}.{}{unit}", fraction.trim_end_matches('0'))
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0 {
            f.write_str("-")?;
        }
        match self.0.unsigned_abs() {
            0 => f.write_str("0s"),
            nanos if nanos < MICROSECOND => write!(f, "{nanos}ns"),
            nanos if nanos < MILLISECOND => decimal(f, nanos, MICROSECOND, "\u{b5}s"),
            nanos if nanos < SECOND => decimal(f, nanos, MILLISECOND, "ms"),
            nanos => {
                if nanos >= HOUR {
                    write!(f, "{}h", nanos / HOUR)?;
                }
                if nanos >= MINUTE {
                    write!(f, "{}m", nanos % HOUR / MINUTE)?;
                }
                decimal(f, nanos % MINUTE, SECOND, "s")
            }
        }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nanos(text: &str) -> i64 {
        text.parse::<GoDuration>().unwrap_or_else(|error| panic!("{text}: {error}")).0
    }

    #[test]
    fn reads_what_go_reads() {
        const S: i64 = SECOND as i64;
        for (text, expected) in [
            ("0", 0),
            ("-0", 0),
            ("0s", 0),
            ("5s", 5 * S),
            ("+5s", 5 * S),
            ("-5s", -5 * S),
            ("5.6s", 5 * S + S / 10 * 6),
            ("5.s", 5 * S),
            (".5s", S / 2),
            ("10ns", 10),
            ("11us", 11_000),
            ("12\u{b5}s", 12_000),
            ("12\u{3bc}s", 12_000),
            ("13ms", 13_000_000),
            ("1h30m", 5400 * S),
            ("10.5s4m", 250 * S + S / 2),
            ("24h0m0s", 86_400 * S),
            ("-2m3.4s", -(123 * S + S / 10 * 4)),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("9007199254740993ns", 9_007_199_254_740_993),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(nanos(text), expected, "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for text in
            ["", "3", "-", "s", ".", "-.", ".s", "+.s", "1d", "1s-2s", " 1s", "1 s", "3000000h"]
        {
            assert!(text.parse::<GoDuration>().is_err(), "{text:?} was accepted");
        }
        let error = "30".parse::<GoDuration>().unwrap_err().to_string();
        assert!(error.contains("missing unit"), "{error}");
        let error = "2d".parse::<GoDuration>().unwrap_err().to_string();
        assert!(error.contains("unknown unit \"d\""), "{error}");
    }

    #[test]
    fn prints_as_go_prints() {
        for (text, expected) in [
            ("0s", "0s"),
            ("1ns", "1ns"),
            ("1100ns", "1.1\u{b5}s"),
            ("2200us", "2.2ms"),
            ("250ms", "250ms"),
            ("30s", "30s"),
            ("60s", "1m0s"),
            ("15m", "15m0s"),
            ("1h", "1h0m0s"),
            ("24h", "24h0m0s"),
            ("3300ms", "3.3s"),
            ("-245s", "-4m5s"),
        ] {
            assert_eq!(GoDuration(nanos(text)).to_string(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(nanos: i64) {
            let duration = GoDuration(nanos);
            prop_assert_eq!(duration.to_string().parse::<GoDuration>(), Ok(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-+0-9.a-zµ ]{0,24}") {
            if let Ok(duration) = text.parse::<GoDuration>() {
                prop_assert_eq!(duration.to_string().parse::<GoDuration>(), Ok(duration));
            }
        }
    }
}
