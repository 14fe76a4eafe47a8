//! Whose commands a node takes, and what its operator opts out of.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use phantom_proto::command::{KeySet, Kind};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::{ConfigError, read_text};
use crate::commands::{compiled_in, read_key_set};

/// The table as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileCommands {
    keys: Option<PathBuf>,
    ignore: BTreeSet<Ignored>,
}

/// A kind, by its name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ignored(Kind);

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == text);
        let names = Kind::ALL.map(Kind::name).join(", ");
        kind.map(Self).ok_or_else(|| D::Error::custom(format!("`{text}` is no kind of command: there are {names}")))
    }
}

/// Maintainers' commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandPlan {
    /// Whose are taken.
    pub keys: KeySet,
    /// What has no effect here.
    pub ignored: BTreeSet<Kind>,
}

impl FileCommands {
    /// `said`: the file of the command line.
    pub(super) fn resolve(self, said: Option<&Path>, base: &Path) -> Result<CommandPlan, ConfigError> {
        let path = said.map(Path::to_owned).or_else(|| self.keys.map(|keys| base.join(keys)));
        let keys = match path {
            None => compiled_in(),
            Some(path) => {
                let text = read_text(&path, "\n  it is the file of the maintainers' public keys")?;
                read_key_set(&text).map_err(|error| ConfigError::Wrong { path, text: error.to_string() })?
            }
        };
        Ok(CommandPlan { keys, ignored: self.ignore.into_iter().map(|one| one.0).collect() })
    }
}
