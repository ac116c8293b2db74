//! Links in what a proxied server answers: those to the root of the same host lead back through the proxy. Pure.

/// Attributes that hold links, by element, as upstream's proxy knows them.
const ATTRIBUTES: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// How links are changed.
pub struct Links<'a> {
    /// The path up to `/proxy`.
    pub prefix: &'a str,
    /// The hosts that mean the proxied server: its own address, and the one that the client has asked.
    pub hosts: [&'a str; 2],
}

impl Links<'_> {
    /// One link. Relative ones and those to other hosts stay as they are.
    pub fn url(&self, link: &str) -> String {
        let after_scheme =
            link.split_once("://").filter(|(scheme, _)| is_scheme(scheme)).map(|(_, rest)| rest);
        let (host, path) = match after_scheme.or_else(|| link.strip_prefix("//")) {
            Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => ("", link),
        };
        let foreign = !host.is_empty() && !self.hosts.contains(&host);
        if foreign || !path.starts_with('/') {
            return link.to_owned();
        }
        let begin = if host == self.hosts[1] { &link[..link.len() - path.len()] } else { "" };
        let prefix = if path.starts_with(self.prefix) { "" } else { self.prefix };
        format!("{begin}{prefix}{path}")
    }

    /// All links of an HTML page.
    pub fn page(&self, page: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(page.len() + 256);
        let mut rest = page;
        while let Some(at) = rest.iter().position(|byte| *byte == b'<') {
            out.extend_from_slice(&rest[..at]);
            rest = &rest[at..];
            if rest.starts_with(b"<!--") {
                let end = find(rest, b"-->").map_or(rest.len(), |at| at + 3);
                out.extend_from_slice(&rest[..end]);
                rest = &rest[end..];
            } else if rest.get(1).is_some_and(u8::is_ascii_alphabetic) {
                let (element, after) = self.tag(rest, &mut out);
                rest = after;
                // What these hold is no HTML.
                if matches!(element.as_str(), "script" | "style") {
                    let end = find(rest, format!("</{element}").as_bytes()).unwrap_or(rest.len());
                    out.extend_from_slice(&rest[..end]);
                    rest = &rest[end..];
                }
            } else {
                out.push(b'<');
                rest = &rest[1..];
            }
        }
        out.extend_from_slice(rest);
        out
    }

    /// One tag, from its `<` to its `>`. Returns the element's name and what follows.
    fn tag<'a>(&self, text: &'a [u8], out: &mut Vec<u8>) -> (String, &'a [u8]) {
        let is_name = |byte: &u8| !byte.is_ascii_whitespace() && !matches!(byte, b'/' | b'>' | b'=');
        let name_end = text.iter().skip(1).position(|byte| !is_name(byte)).map_or(text.len(), |at| at + 1);
        let element = String::from_utf8_lossy(&text[1..name_end]).to_ascii_lowercase();
        let linking = ATTRIBUTES.iter().find(|(name, _)| *name == element).map_or(&[][..], |(_, list)| list);
        out.extend_from_slice(&text[..name_end]);
        let mut rest = &text[name_end..];
        loop {
            let begin = rest.iter().position(|byte| is_name(byte) || *byte == b'>').unwrap_or(rest.len());
            out.extend_from_slice(&rest[..begin]);
            rest = &rest[begin..];
            match rest.first() {
                None => return (element, rest),
                Some(b'>') => {
                    out.push(b'>');
                    return (element, &rest[1..]);
                }
                Some(_) => {}
            }
            let end = rest.iter().position(|byte| !is_name(byte)).unwrap_or(rest.len());
            let attribute = String::from_utf8_lossy(&rest[..end]).to_ascii_lowercase();
            let blank = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let equals = end + blank(&rest[end..]);
            if rest.get(equals) != Some(&b'=') {
                out.extend_from_slice(&rest[..end]);
                rest = &rest[end..];
                continue;
            }
            let value = equals + 1 + blank(&rest[equals + 1..]);
            out.extend_from_slice(&rest[..value]);
            rest = &rest[value..];
            let length = match rest.first() {
                Some(quote @ (b'"' | b'\'')) => {
                    out.push(*quote);
                    rest = &rest[1..];
                    rest.iter().position(|byte| byte == quote).unwrap_or(rest.len())
                }
                _ => {
                    let over = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'>';
                    rest.iter().position(over).unwrap_or(rest.len())
                }
            };
            match std::str::from_utf8(&rest[..length]) {
                Ok(link) if linking.contains(&attribute.as_str()) => out.extend(self.url(link).into_bytes()),
                _ => out.extend_from_slice(&rest[..length]),
            }
            rest = &rest[length..];
            if let Some(quote @ (b'"' | b'\'')) = rest.first() {
                out.push(*quote);
                rest = &rest[1..];
            }
        }
    }
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window.eq_ignore_ascii_case(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINKS: Links<'_> = Links { prefix: "/api/v1/pods/p/proxy", hosts: ["10.1.0.2:80", "server:6443"] };

    #[test]
    fn links_to_the_root_of_the_same_host_lead_back() {
        for (link, expected) in [
            ("/a?b=/c", "/api/v1/pods/p/proxy/a?b=/c"),
            ("http://10.1.0.2:80/a/", "/api/v1/pods/p/proxy/a/"),
            ("https://server:6443/a", "https://server:6443/api/v1/pods/p/proxy/a"),
            ("https://server:6443/api/v1/pods/p/proxy/a", "https://server:6443/api/v1/pods/p/proxy/a"),
            ("/api/v1/pods/p/proxy/a", "/api/v1/pods/p/proxy/a"),
            ("a/b", "a/b"),
            ("#top", "#top"),
            ("http://example.com/a", "http://example.com/a"),
            ("//example.com/a", "//example.com/a"),
            ("?to=http://x/y", "?to=http://x/y"),
        ] {
            assert_eq!(LINKS.url(link), expected, "{link}");
        }
    }

    #[test]
    fn only_attributes_that_hold_links_are_changed() {
        for (page, expected) in [
            (r#"<a href="/rewriteme">test</a>"#, r#"<a href="/api/v1/pods/p/proxy/rewriteme">test</a>"#),
            ("<A class=x HREF='/b'/>", "<A class=x HREF='/api/v1/pods/p/proxy/b'/>"),
            ("<img alt=/x src=/y>", "<img alt=/x src=/api/v1/pods/p/proxy/y>"),
            ("<!-- <a href=/b> -->1 < 2", "<!-- <a href=/b> -->1 < 2"),
            ("<script>\"<a href='/b'>\"</script><p>", "<script>\"<a href='/b'>\"</script><p>"),
            ("<div href=\"/b\" hidden>", "<div href=\"/b\" hidden>"),
            ("<a href=\"/unended", "<a href=\"/api/v1/pods/p/proxy/unended"),
            ("<a", "<a"),
            ("<", "<"),
        ] {
            assert_eq!(String::from_utf8_lossy(&LINKS.page(page.as_bytes())), expected, "{page}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_page_without_roots_stays_as_it_is(page in "[<>a-z \"'=!-]{0,60}") {
            proptest::prop_assert_eq!(LINKS.page(page.as_bytes()), page.as_bytes());
        }
    }
}
