//! `logging`, of k8s.io/component-base.

use super::field::{Field, section};
use super::is_false;
use crate::config::GoDuration;
use crate::config::headings::{LOGGING, WITHOUT_EFFECT};
use clap::{ArgAction, Args};
use serde::{Deserialize, Deserializer, Serialize};
use std::str::FromStr;

section! {
    /// `logging`. Its flags count also beside a file, one by one.
    #[command(next_help_heading = LOGGING)]
    LoggingConfiguration {
        /// Verbosity: 0 to 3 informational, 4 and 5 debug, 6 and more trace
        #[arg(id = "/logging/verbosity", short = 'v', long = "v", value_name = "N")]
        verbosity: u32,
        /// Verbosity of single modules, such as sync=4,kernel=6
        #[arg(id = "/logging/vmodule", long = "vmodule", value_name = "NAME=N,...",
            value_delimiter = ',', action = ArgAction::Append)]
        #[serde(skip_serializing_if = "Vec::is_empty")]
        vmodule: Vec<VModuleItem>,
        /// text or json
        #[arg(id = "/logging/format", long = "logging-format", value_name = "FORMAT")]
        format: String = "text",
        // Lines are written at once.
        #[arg(id = "/logging/flushFrequency", long = "log-flush-frequency", value_name = "DURATION",
            help_heading = WITHOUT_EFFECT)]
        #[serde(deserialize_with = "duration_or_nanoseconds")]
        flush_frequency: GoDuration = GoDuration::from_secs(5),
        #[command(flatten)]
        options: FormatOptions,
    }
}

/// A duration, or (before Kubernetes 1.28) a number of nanoseconds.
fn duration_or_nanoseconds<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<GoDuration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Nanos(i64),
        Text(String),
    }
    match Form::deserialize(deserializer)? {
        Form::Nanos(nanos) => Ok(GoDuration::from_nanos(nanos)),
        Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// One entry of `logging.vmodule`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VModuleItem {
    pub file_pattern: String,
    pub verbosity: u32,
}

/// As `--vmodule` has it: `sync=4`. Nothing at all is the empty item.
impl FromStr for VModuleItem {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(VModuleItem::default());
        }
        let (pattern, level) =
            text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=N"))?;
        let verbosity = level.parse().map_err(|_| format!("{level:?} is not a verbosity"))?;
        Ok(VModuleItem { file_pattern: pattern.to_owned(), verbosity })
    }
}

section! {
    /// `logging.options`: there is one stream, and it is not buffered.
    #[command(next_help_heading = WITHOUT_EFFECT)]
    FormatOptions {
        #[command(flatten)]
        text: TextOptions,
        #[command(flatten)]
        json: JsonOptions,
    }
}

section! {
    /// `logging.options.text`.
    TextOptions {
        #[arg(id = "/logging/options/text/splitStream", long = "log-text-split-stream")]
        #[serde(skip_serializing_if = "is_false")]
        split_stream: bool,
        #[arg(id = "/logging/options/text/infoBufferSize", long = "log-text-info-buffer-size",
            value_name = "SIZE")]
        #[serde(deserialize_with = "quantity")]
        info_buffer_size: String = "0",
    }
}

section! {
    /// `logging.options.json`.
    JsonOptions {
        #[arg(id = "/logging/options/json/splitStream", long = "log-json-split-stream")]
        #[serde(skip_serializing_if = "is_false")]
        split_stream: bool,
        #[arg(id = "/logging/options/json/infoBufferSize", long = "log-json-info-buffer-size",
            value_name = "SIZE")]
        #[serde(deserialize_with = "quantity")]
        info_buffer_size: String = "0",
    }
}

/// A quantity (`"0"`, `64Ki`, `512`), kept as it is written.
fn quantity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Number(u64),
        Text(String),
    }
    Ok(match Form::deserialize(deserializer)? {
        Form::Number(number) => number.to_string(),
        Form::Text(text) => text,
    })
}
