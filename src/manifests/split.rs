//! From the text of a file to pieces that hold one object each.
//!
//! Files may hold many documents, and a document may be a list (`kubectl get ... -o yaml`) of 100,000
//! objects. Cutting the text first, without parsing it, keeps the memory for parsing at the size of
//! one object, and lets a piece that has not changed since the last time be recognised by its hash.
//!
//! Documents are cut where YAML has its markers: a line that starts with `---` or `...` is one wherever
//! it stands, even inside a quoted text. The items of a list are cut by their indentation, which is
//! right for everything that kubectl and YAML emitters write. Where it is not (a list with anchors that
//! reach from item to item, say) parsing the cut items fails, and the list is parsed as a whole.

use super::head::{self, Head, Heads};
use super::text::{self, is_blank, yaml_lines};
use serde_json::value::RawValue;
use std::sync::Arc;

/// What a file name says about its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Yaml,
    Json,
}

impl Format {
    /// The format of a file that is a manifest by its name; hidden files and editors' backups are not.
    pub fn of(name: &str) -> Option<Format> {
        let (stem, extension) = name.rsplit_once('.')?;
        if stem.is_empty() || stem.starts_with('.') {
            return None;
        }
        match extension.to_ascii_lowercase().as_str() {
            "yaml" | "yml" => Some(Format::Yaml),
            "json" => Some(Format::Json),
            _ => None,
        }
    }
}

/// How to parse a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    Yaml,
    /// A sequence whose only entry is the object.
    YamlItem,
    /// A whole list document.
    YamlList,
}

/// A part of a file's text that holds an object (or, as `YamlList`, several).
#[derive(Clone, Debug, PartialEq)]
pub struct Piece<'a> {
    pub text: &'a str,
    pub form: Form,
    /// The number of the document in the file, from 1.
    pub document: usize,
    /// The place in `items`, from 0.
    pub item: Option<usize>,
    /// apiVersion and kind, if they could be read off without parsing; for the items of a list like
    /// `ServiceList` those that the list gives them.
    pub head: Option<Arc<Head>>,
}

/// A document that cannot be cut or parsed: its number and what the parser said.
#[derive(Debug)]
pub struct BadDocument {
    pub document: usize,
    pub message: String,
}

/// Cuts a file into pieces. With `lists` off, YAML lists are left whole.
pub fn split(text: &str, format: Format, lists: bool) -> Result<Vec<Piece<'_>>, BadDocument> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        Format::Json => json_pieces(text),
        // JSON is YAML, and parses many times faster as JSON.
        Format::Yaml if text.trim_start().starts_with('{') => {
            json_pieces(text).or_else(|_| yaml_pieces(text, lists))
        }
        Format::Yaml => yaml_pieces(text, lists),
    }
}

fn json_pieces(text: &str) -> Result<Vec<Piece<'_>>, BadDocument> {
    let mut pieces = Vec::new();
    let mut heads = Heads::default();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    for document in 1.. {
        let bad = |error: serde_json::Error| BadDocument { document, message: error.to_string() };
        let Some(value) = values.next() else { break };
        let value = value.map_err(bad)?.get();
        let whole = Piece { text: value, form: Form::Json, document, item: None, head: None };
        let Ok(head) = text::json::<Head>(text, value) else {
            // Whoever parses it says why.
            pieces.push(whole);
            continue;
        };
        match head.list() {
            None => pieces.push(Piece { head: Some(heads.share(head)), ..whole }),
            Some(head) => {
                let head = head.map(|head| heads.share(head));
                let items: JsonItems<'_> = serde_json::from_str(value).map_err(|_| {
                    BadDocument { document, message: "items: not a list".to_owned() }
                })?;
                pieces.extend(items.items.unwrap_or_default().into_iter().enumerate().map(
                    |(item, raw)| {
                        let text = raw.get();
                        Piece { text, item: Some(item), head: head.clone(), ..whole.clone() }
                    },
                ));
            }
        }
    }
    Ok(pieces)
}

/// The items of a list in JSON.
#[derive(serde::Deserialize)]
struct JsonItems<'a> {
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

fn yaml_pieces(text: &str, lists: bool) -> Result<Vec<Piece<'_>>, BadDocument> {
    let mut pieces = Vec::new();
    let mut heads = Heads::default();
    let mut document = 0;
    for (marked, text) in yaml_documents(text) {
        let empty = is_empty(text);
        if marked || !empty {
            document += 1;
        }
        if empty {
            continue;
        }
        let head = head::of_yaml(text, 0);
        let list = head.as_ref().and_then(Head::list);
        let head = head.map(|head| heads.share(head));
        let whole = Piece { text, form: Form::Yaml, document, item: None, head };
        let Some(list) = list else {
            pieces.push(whole);
            continue;
        };
        let Some(items) = lists.then(|| yaml_items(text)).flatten() else {
            pieces.push(Piece { form: Form::YamlList, ..whole });
            continue;
        };
        for (item, text) in items.into_iter().enumerate() {
            let dash = text.len() - text.trim_start().len();
            let head = list.clone().or_else(|| head::of_yaml_item(text, dash));
            let head = head.map(|head| heads.share(head));
            let item = Some(item);
            pieces.push(Piece { text, form: Form::YamlItem, document, item, head });
        }
    }
    Ok(pieces)
}

/// Whether a line is a document marker.
fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with(is_blank))
}

/// The documents of a file, each with whether it starts with `---`.
fn yaml_documents(text: &str) -> Vec<(bool, &str)> {
    let mut documents = Vec::new();
    let mut start = 0;
    let mut marked = false;
    let mut end = 0;
    for line in yaml_lines(text) {
        if is_marker(line, "---") {
            documents.push((marked, &text[start..end]));
            (start, marked) = (end, true);
        }
        end += line.len();
        if is_marker(line, "...") {
            documents.push((marked, &text[start..end]));
            (start, marked) = (end, false);
        }
    }
    documents.push((marked, &text[start..]));
    documents
}

/// Whether there is nothing in a document but comments, directives and markers.
fn is_empty(document: &str) -> bool {
    yaml_lines(document).all(|line| {
        let line = ["---", "..."]
            .iter()
            .find_map(|marker| is_marker(line, marker).then(|| &line[3..]))
            .unwrap_or(line);
        let text = line.trim();
        text.is_empty() || text.starts_with('#') || line.starts_with('%')
    })
}

/// The items of a list document, each as a sequence with one entry; `None` if the list is not in block
/// style, or what stands around the items may reach into them.
fn yaml_items(document: &str) -> Option<Vec<&str>> {
    let mut items = Vec::new();
    // Column of the dashes, once the first one has been seen.
    let mut column = None;
    let mut inside = false;
    let mut done = false;
    let mut start = 0;
    let mut end = 0;
    for line in yaml_lines(document) {
        let text = line.trim_start_matches(' ');
        let indent = line.len() - text.len();
        let blank = text.trim().is_empty() || text.starts_with('#');
        if let Some(rest) = line.strip_prefix("items:") {
            let rest = rest.trim();
            if done || inside || !(rest.is_empty() || rest.starts_with('#')) {
                return None;
            }
            inside = true;
        } else if inside && !blank {
            let dash = text.strip_prefix('-').is_some_and(|rest| rest.starts_with(is_blank));
            match column {
                None if !dash => return None,
                None => {
                    column = Some(indent);
                    start = end;
                }
                Some(column) if indent > column => {}
                Some(column) if indent == column && dash => {
                    items.push(&document[start..end]);
                    start = end;
                }
                Some(_) if indent == 0 => {
                    items.push(&document[start..end]);
                    (inside, done) = (false, true);
                }
                Some(_) => return None,
            }
        }
        if !inside && !blank && !ends_with_its_line(text) {
            return None;
        }
        end += line.len();
    }
    if inside && column.is_some() {
        items.push(&document[start..end]);
    }
    (!items.is_empty()).then_some(items)
}

/// Whether it can be seen that a key and its value, or the key of an indented block, do not reach over the end of the
/// line, as a text in quotes can, or a list in brackets.
fn ends_with_its_line(line: &str) -> bool {
    let simple = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:+".contains(&byte);
    let Some((key, value)) = line.trim_end().split_once(':') else { return false };
    let value = value.split(" #").next().unwrap_or_default().trim();
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let bare = quoted.unwrap_or(value);
    key.bytes().all(simple) && (["[]", "{}"].contains(&value) || bare.bytes().all(simple))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str, format: Format) -> Vec<(usize, Option<usize>, &str)> {
        let pieces = split(text, format, true).unwrap();
        pieces.iter().map(|piece| (piece.document, piece.item, piece.text)).collect()
    }

    fn heads(text: &str, format: Format) -> Vec<Option<(String, String)>> {
        split(text, format, true)
            .unwrap()
            .into_iter()
            .map(|piece| {
                piece.head.and_then(|head| Some((head.api_version.clone()?, head.kind.clone()?)))
            })
            .collect()
    }

    fn head(api_version: &str, kind: &str) -> Option<(String, String)> {
        Some((api_version.to_owned(), kind.to_owned()))
    }

    #[test]
    fn names() {
        for (name, expected) in [
            ("web.yaml", Some(Format::Yaml)),
            ("web.yml", Some(Format::Yaml)),
            ("web.YAML", Some(Format::Yaml)),
            ("a.b.json", Some(Format::Json)),
            (".web.yaml", None),
            (".#web.yaml", None),
            (".yaml", None),
            ("web.yaml~", None),
            ("web.yaml.swp", None),
            ("yaml", None),
            ("..data", None),
        ] {
            assert_eq!(Format::of(name), expected, "{name}");
        }
    }

    #[test]
    fn yaml_is_cut_at_markers() {
        for (text, expected) in [
            ("", vec![]),
            ("# nothing\n---\n# here\n", vec![]),
            ("a: 1", vec![(1, None, "a: 1")]),
            ("a: 1\n---\nb: 2\n", vec![(1, None, "a: 1\n"), (2, None, "---\nb: 2\n")]),
            ("---\na: 1\n---\n---\nb: 2", vec![(1, None, "---\na: 1\n"), (3, None, "---\nb: 2")]),
            ("# head\n---\na: 1\n", vec![(1, None, "---\na: 1\n")]),
            ("%YAML 1.2\n---\na: 1\n", vec![(1, None, "---\na: 1\n")]),
            ("a: 1\n...\n# end\n", vec![(1, None, "a: 1\n...\n")]),
            ("a: 1\n...\n---\nb: 2\n", vec![(1, None, "a: 1\n...\n"), (2, None, "---\nb: 2\n")]),
            ("a: |\n  ---\n  x\n", vec![(1, None, "a: |\n  ---\n  x\n")]),
            ("---  {a: 1}\n--- # c\n", vec![(1, None, "---  {a: 1}\n")]),
            ("a: 1\r\n---\r\nb: 2\r\n", vec![(1, None, "a: 1\r\n"), (2, None, "---\r\nb: 2\r\n")]),
            ("a: 1\r--- \u{85}b: 2", vec![(1, None, "a: 1\r"), (2, None, "--- \u{85}b: 2")]),
            ("# c\ra: 1\n", vec![(1, None, "# c\ra: 1\n")]),
            ("----: 1\n", vec![(1, None, "----: 1\n")]),
            ("\u{feff}a: 1\n", vec![(1, None, "a: 1\n")]),
        ] {
            assert_eq!(texts(text, Format::Yaml), expected, "{text:?}");
        }
    }

    #[test]
    fn yaml_heads() {
        assert_eq!(heads("apiVersion: v1\nkind: Service\n", Format::Yaml), [head("v1", "Service")]);
        assert_eq!(
            heads(
                "metadata:\n  kind: X\nkind: \"Service\" # c\napiVersion: 'discovery.k8s.io/v1'\r\n",
                Format::Yaml
            ),
            [head("discovery.k8s.io/v1", "Service")]
        );
        assert_eq!(heads("kind: Service\n", Format::Yaml), [None]);
        assert_eq!(heads("apiVersion: v1\nkind: !!str Service\n", Format::Yaml), [None]);
        assert_eq!(heads("? kind\n: Service\n", Format::Yaml), [None]);
        assert_eq!(heads("apiVersion: v1\nkind: Service\n\n   - b\n", Format::Yaml), [None]);
        let twice = "kind: Service\napiVersion: v1\na: \"\nkind: Pod\n\"\n";
        assert_eq!(heads(twice, Format::Yaml), [None]);
        let list = "kind: List\napiVersion: v1\nitems:\n- kind: Service\n    b\n  apiVersion: v1\n";
        assert_eq!(heads(list, Format::Yaml), [None]);
    }

    #[test]
    fn yaml_lists_are_cut_at_their_items() {
        let list = "apiVersion: v1\nitems:\n# first\n- apiVersion: v1\n  kind: Service\n  x:\n  - 1\n\
                    \n- kind: Node\n  apiVersion: v1\n# end\nkind: List\n";
        assert_eq!(
            texts(list, Format::Yaml),
            [
                (1, Some(0), "- apiVersion: v1\n  kind: Service\n  x:\n  - 1\n\n"),
                (1, Some(1), "- kind: Node\n  apiVersion: v1\n# end\n"),
            ]
        );
        assert_eq!(heads(list, Format::Yaml), [head("v1", "Service"), head("v1", "Node")]);

        let list = "kind: ServiceList\napiVersion: v1\nitems:\n  -   spec: {}\n  -\n    spec: {}\n";
        assert_eq!(
            texts(list, Format::Yaml),
            [(1, Some(0), "  -   spec: {}\n"), (1, Some(1), "  -\n    spec: {}\n")]
        );
        assert_eq!(heads(list, Format::Yaml), [head("v1", "Service"), head("v1", "Service")]);

        let list = "kind: ServiceList\napiVersion: v1\nitems:\n- a:\n\r   b: 1\n";
        assert_eq!(texts(list, Format::Yaml), [(1, Some(0), "- a:\n\r   b: 1\n")]);

        for whole in [
            "kind: List\napiVersion: v1\nitems: [{kind: Service}]\n",
            "kind: List\napiVersion: v1\nitems:\n  {}\n",
            "kind: List\napiVersion: v1\nitems:\n  - a: 1\n b: 2\n",
            "kind: List\napiVersion: v1\n",
            "kind: List\napiVersion: v1\na: \"\nitems:\n- kind: Service\n\"\n",
            "kind: List\napiVersion: v1\na: [\nitems:\n- kind: Service\n]\n",
            "kind: List\napiVersion: v1\na: 'b\nitems:\n- kind: Service\nb: '\n",
        ] {
            assert_eq!(texts(whole, Format::Yaml), [(1, None, whole)]);
        }
    }

    #[test]
    fn json_is_cut_at_values() {
        let text = r#" {"kind":"Service","apiVersion":"v1"}
            {"kind":"List","apiVersion":"v1","items":[{"a":1}, {"kind":"Node"}]}
            {"items":[{"a":2}],"kind":"ServiceList","apiVersion":"v1"}
            {"kind":"List","apiVersion":"v1","items":null} {"kind":"List"}"#;
        let expected = [
            (1, None, r#"{"kind":"Service","apiVersion":"v1"}"#),
            (2, Some(0), r#"{"a":1}"#),
            (2, Some(1), r#"{"kind":"Node"}"#),
            (3, Some(0), r#"{"a":2}"#),
        ];
        assert_eq!(texts(text, Format::Json), expected);
        assert_eq!(texts(text, Format::Yaml), expected, "JSON in a YAML file");
        let service = head("v1", "Service");
        assert_eq!(heads(text, Format::Json), [service.clone(), None, None, service]);
    }

    #[test]
    fn bad_json_is_reported_with_its_place() {
        for (text, document, message) in [
            ("{\"a\":\n}", 1, "expected value at line 2 column 1"),
            ("{} x", 2, "expected value at line 1 column 4"),
            (r#"{"kind": "List", "items": 3}"#, 1, "items: not a list"),
        ] {
            let bad = split(text, Format::Json, true).unwrap_err();
            assert_eq!((bad.document, bad.message.as_str()), (document, message), "{text}");
        }
    }
}
