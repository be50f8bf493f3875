//! Weights of endpoints, as an annotation gives them.

use std::fmt;
use std::sync::Arc;

/// The greatest weight, the same as of the Gateway API's `backendRefs`.
pub const WEIGHT_MAX: u32 = 1_000_000;

/// `web-canary-*=1, zone/eu-1a=3, node/worker-7=0, *=9`: the first part that fits an endpoint says how many new connections
/// it gets, compared with others. Where none fits, the weight is 1; with weight 0 it gets none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Weights(Box<[Term]>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Term {
    by: By,
    /// `*` stands for any text.
    pattern: Box<str>,
    weight: u32,
}

/// What of an endpoint a pattern is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum By {
    Pod,
    Zone,
    Node,
}

impl By {
    /// With a slash behind it in front of the pattern; a pod needs none.
    const fn word(self) -> &'static str {
        match self {
            By::Pod => "pod",
            By::Zone => "zone",
            By::Node => "node",
        }
    }
}

/// What weights go by, of an endpoint whose Service or slice has weights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Description {
    /// `targetRef.name`
    pub pod: Option<Arc<str>>,
    /// `zone`
    pub zone: Option<Arc<str>>,
    /// The weight that its slice gives it.
    pub weight: Option<u32>,
}

impl Weights {
    /// Reads an annotation; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Weights, String> {
        let terms: Result<Box<[Term]>, String> = text.split(',').map(Term::parse).collect();
        terms.map(Weights)
    }

    /// The weight of an endpoint, where a part fits it.
    pub fn of(&self, described: &Description, node: Option<&str>) -> Option<u32> {
        let fits = |term: &&Term| {
            let text = match term.by {
                By::Pod => described.pod.as_deref(),
                By::Zone => described.zone.as_deref(),
                By::Node => node,
            };
            // A star alone is for those without, too.
            is_like(text.unwrap_or_default(), &term.pattern)
                && (text.is_some() || &*term.pattern == "*")
        };
        self.0.iter().find(fits).map(|term| term.weight)
    }

    /// Whether they go by what slices are not asked for otherwise.
    pub fn need_description(&self) -> bool {
        self.0.iter().any(|term| term.by != By::Node && &*term.pattern != "*")
    }
}

impl Term {
    fn parse(text: &str) -> Result<Term, String> {
        let text = text.trim();
        let Some((whom, weight)) = text.split_once('=') else {
            return Err(format!("{text:?} is not PATTERN=WEIGHT"));
        };
        let (whom, number) = (whom.trim(), weight.trim());
        let weight = number.parse().ok().filter(|weight| *weight <= WEIGHT_MAX);
        let Some(weight) = weight.filter(|_| number.bytes().all(|byte| byte.is_ascii_digit()))
        else {
            return Err(format!("{number:?} is not a weight, a number of 0-{WEIGHT_MAX}"));
        };
        let (by, pattern) = match whom.split_once('/') {
            None => (By::Pod, whom),
            Some((word, pattern)) => {
                let by = [By::Pod, By::Zone, By::Node].into_iter().find(|by| by.word() == word);
                (by.ok_or_else(|| format!("{word:?} is none of pod, zone, node"))?, pattern)
            }
        };
        if pattern.is_empty() {
            return Err(format!("{text:?} names nothing"));
        }
        Ok(Term { by, pattern: pattern.into(), weight })
    }
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, Term { by, pattern, weight }) in self.0.iter().enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            let by = if *by == By::Pod { String::new() } else { format!("{}/", by.word()) };
            write!(f, "{comma}{by}{pattern}={weight}")?;
        }
        Ok(())
    }
}

/// Whether a text is what a pattern says, in which `*` stands for any text. Takes no longer than the product of both
/// lengths, whatever somebody writes.
fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let (mut at, mut of) = (0, 0);
    // Where the last star stands, and the text behind what it stands for so far.
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        if pattern.get(of) == Some(&b'*') {
            star = Some((of, at));
            of += 1;
        } else if pattern.get(of) == Some(&text[at]) {
            (at, of) = (at + 1, of + 1);
        } else if let Some((stands, begin)) = star {
            star = Some((stands, begin + 1));
            (at, of) = (begin + 1, stands + 1);
        } else {
            return false;
        }
    }
    pattern[of..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Description {
        Description { pod: Some(name.into()), ..Description::default() }
    }

    #[test]
    fn the_first_that_fits_counts() {
        let weights = Weights::parse("web-canary-*=1, zone/eu-1a=3,node/worker-*=0 , *=9").unwrap();
        let zoned = Description { zone: Some("eu-1a".into()), ..pod("web-7") };
        assert_eq!(weights.of(&pod("web-canary-x"), Some("worker-1")), Some(1));
        assert_eq!(weights.of(&zoned, Some("worker-1")), Some(3));
        assert_eq!(weights.of(&pod("web-7"), Some("worker-1")), Some(0));
        assert_eq!(weights.of(&Description::default(), None), Some(9));
        assert_eq!(weights.to_string(), "web-canary-*=1, zone/eu-1a=3, node/worker-*=0, *=9");
        assert!(weights.need_description());
        assert_eq!(Weights::parse("web-*=2").unwrap().of(&pod("db"), None), None);
        assert!(!Weights::parse("node/a=2, *=1").unwrap().need_description());
    }

    #[test]
    fn stars_stand_for_any_text() {
        for (text, pattern, is) in [
            ("web-1", "web-1", true),
            ("web-1", "web-*", true),
            ("web-", "web-*", true),
            ("web", "web-*", false),
            ("web-canary-1", "*canary*", true),
            ("aab", "*ab", true),
            ("abab", "a*b", true),
            ("abc", "a*b", false),
            ("", "*", true),
            ("", "**", true),
            ("x", "", false),
        ] {
            assert_eq!(is_like(text, pattern), is, "{text} {pattern}");
        }
        assert!(!is_like(&"a".repeat(4000), &format!("{}b", "*a".repeat(1000))));
    }

    #[test]
    fn what_is_no_weight_is_said() {
        for (text, said) in [
            ("", "\"\" is not PATTERN=WEIGHT"),
            ("a=1,", "\"\" is not PATTERN=WEIGHT"),
            ("a", "\"a\" is not PATTERN=WEIGHT"),
            ("a=-1", "\"-1\" is not a weight, a number of 0-1000000"),
            ("a=+1", "\"+1\" is not a weight, a number of 0-1000000"),
            ("a=1000001", "\"1000001\" is not a weight, a number of 0-1000000"),
            ("rack/a=1", "\"rack\" is none of pod, zone, node"),
            ("zone/=1", "\"zone/=1\" names nothing"),
        ] {
            assert_eq!(Weights::parse(text).unwrap_err(), said);
        }
    }
}
