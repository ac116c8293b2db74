//! Pod address ranges: each node gets one block of each cluster CIDR, the lowest that is free.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    ipv6: bool,
    base: u128,
    prefix: u32,
}

/// Why a text is not a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a CIDR; write it like 10.244.0.0/16 or fd00:10:244::/56")]
pub struct CidrError(String);

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let bad = || CidrError(text.to_owned());
        let (address, prefix) = text.trim().split_once('/').ok_or_else(bad)?;
        let prefix: u32 = prefix.parse().map_err(|_| bad())?;
        let (ipv6, address, width) = match address.parse::<IpAddr>().map_err(|_| bad())? {
            IpAddr::V4(address) => (false, u128::from(u32::from(address)), 32),
            IpAddr::V6(address) => (true, u128::from(address), 128),
        };
        if prefix == 0 || prefix > width {
            return Err(bad());
        }
        let size = width - prefix;
        let base = if size >= 128 { 0 } else { address >> size << size };
        Ok(Self { ipv6, base, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ipv6 {
            write!(f, "{}/{}", Ipv6Addr::from(self.base), self.prefix)
        } else {
            let address = u32::try_from(self.base).unwrap_or_default();
            write!(f, "{}/{}", Ipv4Addr::from(address), self.prefix)
        }
    }
}

impl Cidr {
    /// Whether it is a block of IPv6 addresses.
    pub const fn is_ipv6(&self) -> bool {
        self.ipv6
    }

    /// The length of its prefix in bits.
    pub const fn prefix(&self) -> u32 {
        self.prefix
    }

    const fn width(&self) -> u32 {
        if self.ipv6 { 128 } else { 32 }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let size = self.width() - self.prefix.min(other.prefix);
        self.ipv6 == other.ipv6 && self.base >> size == other.base >> size
    }

    /// The lowest block with this prefix length in it that overlaps none of `used`; `None` if it is full or too small.
    pub fn first_free(&self, prefix: u32, used: &HashSet<Cidr>) -> Option<Cidr> {
        if prefix < self.prefix || prefix > self.width() || prefix - self.prefix >= 64 {
            return None;
        }
        let size = self.width() - prefix;
        let odd: Vec<_> =
            used.iter().filter(|cidr| cidr.prefix != prefix && cidr.ipv6 == self.ipv6).collect();
        (0..1u128 << (prefix - self.prefix))
            .map(|index| Cidr { ipv6: self.ipv6, base: self.base + (index << size), prefix })
            .find(|cidr| !used.contains(cidr) && !odd.iter().any(|other| other.overlaps(cidr)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_get_the_lowest_free_block_until_the_range_is_full() {
        let range: Cidr = "10.244.0.0/22".parse().expect("valid");
        let mut used: HashSet<Cidr> = ["10.244.1.0/24".parse().expect("valid")].into();
        let mut given = vec![];
        while let Some(block) = range.first_free(24, &used) {
            used.insert(block);
            given.push(block.to_string());
        }
        assert_eq!(given, ["10.244.0.0/24", "10.244.2.0/24", "10.244.3.0/24"]);
        assert_eq!(range.first_free(16, &HashSet::new()), None, "larger than the range");
        let six: Cidr = "fd00:10:244::/56".parse().expect("valid");
        assert_eq!(
            six.first_free(64, &HashSet::new()).map(|c| c.to_string()),
            Some("fd00:10:244::/64".into())
        );
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in ["10.244.0.0", "10.244.0.0/33", "x/8", "10.0.0.0/0"] {
            assert!(text.parse::<Cidr>().expect_err("refused").to_string().contains("10.244.0.0/16"));
        }
    }
}
