//! What the daemon says of its own state: warnings, checks, steps of its start, lines of its log.

use serde::{Deserialize, Serialize};

/// How bad a warning is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; nothing is to be done.
    Info,
    /// It may become worse, or costs something.
    Warning,
    /// Something does not work.
    Error,
}

impl Severity {
    /// How people and scripts are told it, everywhere.
    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something that is wrong now. docs/warnings.md lists the codes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Warning {
    /// What scripts know it by.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// For how long it has been so.
    pub since_seconds: u64,
    /// What is wrong, as one sentence without a full stop.
    pub text: String,
    /// What to do.
    pub advice: String,
    /// Whether connections of programs suffer.
    pub affects_connections: bool,
    /// The code of what it is an effect of: that is what to look at, and people are not told of this one.
    pub caused_by: Option<String>,
}

/// A step of the daemon's start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartStep {
    /// What it brings.
    pub what: String,
    /// Whether it is done.
    pub done: bool,
    /// How long it took after the one before, or has taken.
    pub milliseconds: u64,
}

/// How something is that `phantom doctor` looks at, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckState {
    /// As it should be.
    Good,
    /// Not to be said yet.
    Unknown,
    /// Programs can be served, but something should be looked at.
    Warning,
    /// Programs cannot be served.
    Bad,
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What scripts know it by.
    pub name: String,
    /// How it is.
    pub state: CheckState,
    /// The same in words.
    pub text: String,
    /// What to do, where something is.
    pub advice: Option<String>,
}

/// What `phantom doctor` tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Doctor {
    /// What was looked at.
    pub checks: Vec<Check>,
    /// What is wrong now, as in [`super::Status`].
    pub warnings: Vec<Warning>,
}

/// A line of the daemon's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLine {
    /// Counts from 1 at the daemon's start.
    pub number: u64,
    /// When, UTC (RFC 3339).
    pub at: String,
    /// error, warn, info or debug.
    pub level: String,
    /// What was said.
    pub text: String,
}
