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
