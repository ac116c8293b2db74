//! The versions of the reviews that extension servers are sent: questions and answers of admission and conversion have the same ones. Pure.

/// A version. The fields are the same; the older one is read less strictly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The present one.
    V1,
    /// The older one.
    V1Beta1,
}

impl Version {
    /// By the name that configurations list; `None` if there is no such version.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "v1" => Some(Self::V1),
            "v1beta1" => Some(Self::V1Beta1),
            _ => None,
        }
    }

    /// The `apiVersion` of reviews of a group.
    pub fn api_version(self, group: &str) -> String {
        let name = match self {
            Self::V1 => "v1",
            Self::V1Beta1 => "v1beta1",
        };
        format!("{group}/{name}")
    }
}
