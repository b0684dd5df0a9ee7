//! The resources: those in the configuration itself, and those in a file of their own.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::Path,
    sync::Arc,
};

use serde::Deserialize;

use super::{
    ConfigError, read,
    target::{Clients, RawResource, Target},
    value,
};

/// `resources_file`: TOML or JSON, of the same shape as the configuration's own `resources`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResources {
    #[serde(default)]
    resources: Vec<RawResource>,
}

/// Checks the resources of the configuration and of the file beside it, by name.
///
/// # Errors
/// [`ConfigError`] names the resource and the value that is wrong.
pub(super) fn load(
    inline: Vec<RawResource>,
    file: Option<&Path>,
) -> Result<HashMap<String, Arc<Target>>, ConfigError> {
    let more = file.map(parse).transpose()?.unwrap_or_default();
    let mut clients = Clients::default();
    let mut targets = HashMap::new();
    for raw in inline.into_iter().chain(more) {
        let target = Target::validate(raw, &mut clients)?;
        match targets.entry(target.resource.name.clone()) {
            Entry::Occupied(entry) => {
                return Err(value("resources", &format!("{:?} is there twice", entry.key())));
            }
            Entry::Vacant(entry) => entry.insert(Arc::new(target)),
        };
    }
    Ok(targets)
}

fn parse(path: &Path) -> Result<Vec<RawResource>, ConfigError> {
    let text = read(path)?;
    let parsed: RawResources = match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => serde_json::from_str(&text)
            .map_err(|source| ConfigError::Json { path: path.to_owned(), source: Box::new(source) })?,
        Some("toml") => toml::from_str(&text)
            .map_err(|source| ConfigError::Toml { path: path.to_owned(), source: Box::new(source) })?,
        _ => {
            let reason = format!("{} is neither .toml nor .json", path.display());
            return Err(value("resources_file", &reason));
        }
    };
    Ok(parsed.resources)
}

#[cfg(test)]
mod tests;
