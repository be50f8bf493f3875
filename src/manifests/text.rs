//! Parsing a part of a file so that an error names lines and columns of the file.

use serde::de::DeserializeOwned;

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
