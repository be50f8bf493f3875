//! Parsing a part of a file so that an error names lines and columns of the file.

use serde::de::DeserializeOwned;

/// Whether YAML ends a line with it: version 1.1, which the parser reads, also with NEL, LS and PS (`b-char`).
fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Whether YAML takes it for white space or the end of a line.
pub fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t') || is_break(c)
}

/// The lines of a YAML text, each with what ends it.
pub fn yaml_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (at, one) =
            rest.char_indices().find(|(_, c)| is_break(*c)).unwrap_or((rest.len(), '\0'));
        let end = match one {
            '\r' if rest[at..].starts_with("\r\n") => at + 2,
            _ => rest.len().min(at + one.len_utf8()),
        };
        let (line, after) = rest.split_at(end);
        rest = after;
        (!line.is_empty()).then_some(line)
    })
}

/// Parses a part of a YAML file.
pub fn yaml<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, String> {
    serde_norway::from_str(text).or_else(|_| {
        // Once more, with all lines where they are in the file.
        serde_norway::from_str(&padded(file, text)).map_err(|error| error.to_string())
    })
}

/// Parses a part of a JSON file.
pub fn json<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, String> {
    serde_json::from_str(text).or_else(|_| {
        let padded = padded(file, text);
        let mut parser = serde_json::Deserializer::from_str(&padded);
        serde_path_to_error::deserialize(&mut parser).map_err(|error| error.to_string())
    })
}

/// A part of a file where it stands in the file, but with white space before it, so that the parser
/// names lines and columns of the file.
fn padded(file: &str, text: &str) -> String {
    let offset = (text.as_ptr() as usize).saturating_sub(file.as_ptr() as usize);
    let before = file.get(..offset).unwrap_or_default();
    let (lines, line) = before
        .rsplit_once('\n')
        .map_or((0, before), |(lines, line)| (lines.matches('\n').count() + 1, line));
    let mut padded = "\n".repeat(lines);
    padded.extend(line.bytes().map(|_| ' '));
    padded.push_str(text);
    padded
}
