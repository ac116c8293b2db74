//! What is served at one moment: the built-in resources and those that CustomResourceDefinitions add.

use std::sync::Arc;

use super::{Resource, lookup, table};

/// Groups and versions of built-in resources that are left out.
pub type Hidden = Arc<[(&'static str, &'static str)]>;

/// The resources that are served at one moment.
#[derive(Debug, Default)]
pub struct Served {
    custom: Vec<&'static Resource>,
    hidden: Hidden,
}

impl Served {
    /// The built-in resources and these. A custom resource at the URL of a built-in one is left out.
    pub fn new(custom: impl IntoIterator<Item = &'static Resource>) -> Self {
        let mut custom: Vec<&'static Resource> = custom
            .into_iter()
            .filter(|row| !table().any(|other| other.group == row.group && other.plural == row.plural))
            .collect();
        custom.sort_by(|one, other| {
            one.group
                .cmp(other.group)
                .then_with(|| crate::custom::version_order(one.version, other.version))
                .then_with(|| one.plural.cmp(other.plural))
        });
        Self { custom, hidden: Hidden::default() }
    }

    /// The same without some of the built-in ones.
    pub fn hiding(self, hidden: &Hidden) -> Self {
        Self { hidden: Arc::clone(hidden), ..self }
    }

    fn is_hidden(&self, row: &Resource) -> bool {
        self.hidden.iter().any(|(group, version)| *group == row.group && *version == row.version)
    }

    /// Every resource, grouped by API group and version, in discovery's order.
    pub fn rows(&self) -> impl Iterator<Item = &'static Resource> {
        table().filter(|row| !self.is_hidden(row)).chain(self.custom.iter().copied())
    }

    /// The custom ones alone.
    pub fn custom(&self) -> &[&'static Resource] {
        &self.custom
    }

    /// The resource at a URL's group, version and plural.
    pub fn lookup(&self, group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
        let fits =
            |row: &&&'static Resource| row.plural == plural && row.group == group && row.version == version;
        let built_in = lookup(group, version, plural).filter(|row| !self.is_hidden(row));
        built_in.or_else(|| self.custom.iter().find(fits).copied())
    }

    /// Every group with its versions, preferred one first; the core group (empty name) first.
    pub fn groups(&self) -> Vec<(&'static str, Vec<&'static str>)> {
        let mut groups: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
        for row in self.rows() {
            match groups.iter_mut().find(|(group, _)| *group == row.group) {
                Some((_, versions)) if versions.contains(&row.version) => {}
                Some((_, versions)) => versions.push(row.version),
                None => groups.push((row.group, vec![row.version])),
            }
        }
        groups
    }
}
