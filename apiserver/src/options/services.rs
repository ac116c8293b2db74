//! Ranges of ports as upstream's flags spell them. Pure.

/// First and last port of `FIRST-LAST`, `FIRST+SIZE` or a single port.
///
/// # Errors
/// What is wrong, and what the text should be like.
pub(super) fn port_range(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let range = if let Some((first, last)) = text.split_once('-') {
        number(first).zip(number(last))
    } else if let Some((first, size)) = text.split_once('+') {
        number(first).zip(number(size)).map(|(first, size)| (first, first.saturating_add(size)))
    } else {
        number(text).map(|port| (port, port))
    };
    match range {
        Some((first, last)) if last > u32::from(u16::MAX) => {
            Err(format!("the port range cannot be greater than 65535: {first}-{last}"))
        }
        Some((first, last)) if first > last => {
            Err(format!("end port cannot be less than start port: {first}-{last}"))
        }
        Some((first, last)) if first > 0 => Ok((first as u16, last as u16)),
        _ => Err(format!("{text:?} must be FIRST-LAST, for instance 30000-32767")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_in_all_three_forms() {
        assert_eq!(port_range("30000-32767"), Ok((30000, 32767)));
        assert_eq!(port_range("30000+2767"), Ok((30000, 32767)));
        assert_eq!(port_range("8080"), Ok((8080, 8080)));
        for (text, error) in [
            ("32767-30000", "end port cannot be less than start port: 32767-30000"),
            ("30000-70000", "the port range cannot be greater than 65535: 30000-70000"),
            ("65535+4294967295", "the port range cannot be greater than 65535: 65535-4294967295"),
            ("", "\"\" must be FIRST-LAST, for instance 30000-32767"),
            ("0-10", "\"0-10\" must be FIRST-LAST, for instance 30000-32767"),
            ("a-b", "\"a-b\" must be FIRST-LAST, for instance 30000-32767"),
        ] {
            assert_eq!(port_range(text), Err(error.to_owned()), "{text:?}");
        }
    }
}
