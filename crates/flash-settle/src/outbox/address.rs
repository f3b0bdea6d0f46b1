//! Which addresses a webhook may not reach: everything that is not the open internet.
//!
//! Whoever configures a target must not be able to make the engine speak to its own network, least of all to the address
//! where clouds hand out credentials. Addresses of IPv6 that carry one of IPv4 are judged by the one that they carry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether the open internet has this address.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// By the registry of special-purpose addresses (RFC 6890 and what followed it).
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match (a, b, c) {
        // "This" network, loopback, multicast, reserved, broadcast.
        (0 | 127 | 224..=255, _, _) => true,
        // Private.
        (10, _, _) | (172, 16..=31, _) | (192, 168, _) => true,
        // Shared by carriers; link-local, where clouds keep their metadata.
        (100, 64..=127, _) | (169, 254, _) => true,
        // Protocol assignments, documentation, 6to4 relays, benchmarks.
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 18..=19, _) | (198, 51, 100) | (203, 0, 113) => {
            true
        }
        _ => false,
    };
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let carried = |high: u16, low: u16| {
        let [x, y] = high.to_be_bytes();
        let [z, w] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(x, y, z, w))
    };
    match (a, b, c, d, e, f) {
        // Mapped (::ffff:0:0/96), NAT64 (64:ff9b::/96), 6to4 (2002::/16).
        (0, 0, 0, 0, 0, 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => carried(g, h),
        (0x2002, _, _, _, _, _) => carried(b, c),
        // Teredo and other protocol assignments; documentation, twice.
        (0x2001, 0..=0x01ff | 0x0db8, _, _, _, _) | (0x3fff, 0..=0x0fff, _, _, _, _) => false,
        // What is handed out to the world. Loopback, unique local (fd00:ec2::254 too), link-local, multicast are not.
        (0x2000..=0x3fff, _, _, _, _, _) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_open_internet_is_public() {
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "169.253.1.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for special in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "fec0::1",
            "2001:db8::1",
            "2001::1",
            "100::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::1",
            "::127.0.0.1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
    }
}
