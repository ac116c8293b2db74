//! The static token file: CSV lines `token,user,uid[,"group1,group2"]`. Read once at start.

use std::collections::HashMap;
use std::path::Path;

use crate::server::request_info::UserInfo;

/// Users by token.
#[derive(Default)]
pub struct StaticTokens(HashMap<String, UserInfo>);

impl StaticTokens {
    /// Reads the file.
    ///
    /// # Errors
    /// Unreadable file, or a line with fewer than three columns.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Self::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let columns = columns(line);
            let [token, name, uid, rest @ ..] = columns.as_slice() else {
                return Err(format!(
                    "line {}: expected at least 3 columns (token, user name, user uid)",
                    number + 1
                ));
            };
            if token.is_empty() {
                tracing::warn!(line = number + 1, "the token file has an empty token, which is ignored");
                continue;
            }
            let mut groups: Vec<String> = rest
                .first()
                .map(|groups| {
                    groups.split(',').map(|g| g.trim().to_owned()).filter(|g| !g.is_empty()).collect()
                })
                .unwrap_or_default();
            groups.push("system:authenticated".into());
            let user = UserInfo {
                name: name.clone(),
                uid: uid.clone(),
                groups,
                extra: std::collections::BTreeMap::new(),
            };
            users.insert(token.clone(), user);
        }
        Ok(Self(users))
    }

    /// The token's user.
    pub fn user(&self, token: &str) -> Option<&UserInfo> {
        self.0.get(token)
    }
}

/// Splits a CSV line: quotes hold commas, a doubled quote is a quote.
fn columns(line: &str) -> Vec<String> {
    let (mut columns, mut column, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                column.push('"');
                chars.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => columns.push(std::mem::take(&mut column).trim().to_owned()),
            c => column.push(c),
        }
    }
    columns.push(column.trim().to_owned());
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_quoted_lists() {
        let tokens =
            StaticTokens::parse("abc,admin,1,\"system:masters,dev\"\n\nxyz,bob,2\n").expect("parses");
        assert_eq!(
            tokens.user("abc").expect("user").groups,
            ["system:masters", "dev", "system:authenticated"]
        );
        assert_eq!(tokens.user("xyz").expect("user").name, "bob");
        assert!(tokens.user("").is_none());
        assert!(StaticTokens::parse("a,b").is_err());
    }
}
