//! Which specs a controller may still be acting on: those of the generation that it said it has seen, and later ones.

/// Specs by generation, oldest first.
#[derive(Debug)]
pub struct Sizes<T>(Vec<(i64, T)>);

impl<T> Default for Sizes<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Sizes<T> {
    /// Notes the spec of a generation, and forgets what is older than what was observed.
    pub fn note(&mut self, generation: i64, observed: Option<i64>, spec: T) {
        self.0
            .retain(|(known, _)| *known != generation && observed.is_none_or(|observed| *known >= observed));
        self.0.push((generation, spec));
    }

    /// Those that may be acted on.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, spec)| spec)
    }
}
