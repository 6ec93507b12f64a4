//! Addresses, printed as the server does.

use super::time::put;
use super::wire::Wire;
use super::{BadValue, Read};

const IPV4: u8 = 2;
const IPV6: u8 = 3;

/// inet and cidr. The length of the prefix is left out if an inet is all of the address.
pub(super) fn print_inet(bytes: &[u8], out: &mut Vec<u8>) -> Read {
    let mut wire = Wire(bytes);
    let (family, prefix, network, length) = (wire.u8()?, wire.u8()?, wire.u8()?, wire.u8()?);
    let bits = match (family, length, wire.0) {
        (IPV4, 4, [a, b, c, d]) => {
            put(out, format_args!("{a}.{b}.{c}.{d}"));
            32
        }
        (IPV6, 16, address) => {
            print_ipv6(address, out)?;
            128
        }
        _ => return Err(BadValue::malformed("an address is neither of IPv4 nor of IPv6")),
    };
    if prefix > bits {
        return Err(BadValue::malformed("the prefix of an address is longer than the address"));
    }
    if prefix < bits || network != 0 {
        put(out, format_args!("/{prefix}"));
    }
    Ok(())
}

/// The first of the longest runs of zeros, of two words or more, becomes `::`. Addresses that wrap one of IPv4 end like it.
fn print_ipv6(address: &[u8], out: &mut Vec<u8>) -> Read {
    let mut wire = Wire(address);
    let mut words = [0; 8];
    for word in &mut words {
        *word = wire.u16()?;
    }
    wire.end()?;
    let (start, length) = longest_zeros(&words);
    let wraps_ipv4 = start == 0
        && match (length, words) {
            (6, _) => true,
            (7, [.., last]) => last != 1,
            (5, [.., mark, _, _]) => mark == 0xffff,
            _ => false,
        };
    for (index, word) in words.iter().enumerate() {
        if (start..start + length).contains(&index) {
            if index == start {
                out.push(b':');
            }
            continue;
        }
        if index > 0 {
            out.push(b':');
        }
        if index == 6 && wraps_ipv4 {
            let [.., high, low] = words.map(u16::to_be_bytes);
            put(out, format_args!("{}.{}.{}.{}", high[0], high[1], low[0], low[1]));
            return Ok(());
        }
        put(out, format_args!("{word:x}"));
    }
    if length > 0 && start + length == words.len() {
        out.push(b':');
    }
    Ok(())
}

/// Start and length; the length is 0 if no run is worth it.
fn longest_zeros(words: &[u16; 8]) -> (usize, usize) {
    let mut best = (0, 0);
    let mut run = 0;
    for (index, word) in words.iter().enumerate() {
        run = if *word == 0 { run + 1 } else { 0 };
        if run > best.1 {
            best = (index + 1 - run, run);
        }
    }
    if best.1 < 2 { (0, 0) } else { best }
}

/// macaddr and macaddr8: `08:00:2b:01:02:03`.
pub(super) fn print_macaddr(bytes: &[u8], out: &mut Vec<u8>) -> Read {
    if !matches!(bytes.len(), 6 | 8) {
        return Err(BadValue::malformed("a MAC address has neither 6 nor 8 bytes"));
    }
    for (index, byte) in bytes.iter().enumerate() {
        let colon = if index == 0 { "" } else { ":" };
        put(out, format_args!("{colon}{byte:02x}"));
    }
    Ok(())
}
