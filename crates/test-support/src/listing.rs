//! Listings of nft, compared.

/// The lines of a listing without what depends on the order of elements.
pub fn sorted_lines(listing: &str) -> Vec<String> {
    let trim = |line: &str| {
        let line = line.trim().trim_start_matches("elements = { ");
        line.trim_end_matches(" }").trim_end_matches(',').to_owned()
    };
    // nft puts several short elements on one line.
    let mut lines: Vec<String> =
        listing.lines().flat_map(|line| line.split(", ").map(trim).collect::<Vec<_>>()).collect();
    lines.sort_unstable();
    lines
}

/// A listing without what says who writes the table: its flags, and the chain that tells writers apart.
fn without_writer(listing: &str) -> String {
    let mut lines = Vec::new();
    let mut is_writer = false;
    for line in listing.lines() {
        is_writer |= line.trim_start().starts_with("chain writer-");
        if !is_writer && !line.trim_start().starts_with("flags owner") && line.trim() != "flags" {
            lines.push(line.split(" # progname").next().unwrap_or_default());
        }
        is_writer &= line.trim() != "}";
    }
    lines.join("\n")
}

/// Panics unless two listings of a table say the same, in whatever order.
#[track_caller]
pub fn assert_same(one: &str, other: &str) {
    let differences = differences(one, other);
    assert!(differences.is_empty(), "only in the first (-) or the second (+): {differences:#?}");
}

/// The lines that only one of two listings of a table has, in whatever order: those of the first with a minus, those of
/// the second with a plus.
pub fn differences(one: &str, other: &str) -> Vec<String> {
    let content = |listing: &str| -> Vec<String> {
        let listing = without_writer(listing);
        let text = listing.replace("elements = {", "\n").replace(['}', ','], "\n");
        let lines = text.lines().map(|line| line.trim().to_owned());
        let mut lines: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
        lines.sort_unstable();
        lines
    };
    let (one, other) = (content(one), content(other));
    let lacks = |sign: char, these: &[String], others: &[String]| -> Vec<String> {
        let mut others = others.to_vec();
        let is_lacking = |line: &&String| match others.iter().position(|other| other == *line) {
            Some(place) => {
                others.swap_remove(place);
                false
            }
            None => true,
        };
        these.iter().filter(is_lacking).map(|line| format!("{sign} {line}")).collect()
    };
    [lacks('-', &one, &other), lacks('+', &other, &one)].concat()
}
