//! Points and what is made of them, printed as the server does.

use super::float::print64;
use super::wire::Wire;
use super::{BadValue, Read};

pub(super) fn print_point(bytes: &[u8], out: &mut Vec<u8>) -> Read {
    let mut wire = Wire(bytes);
    point(&mut wire, out)?;
    wire.end()
}

/// `[(x,y),(x,y)]`
pub(super) fn print_segment(bytes: &[u8], out: &mut Vec<u8>) -> Read {
    out.push(b'[');
    points(Wire(bytes), 2, out)?;
    out.push(b']');
    Ok(())
}

/// `(x,y),(x,y)`: two corners without anything around them.
pub(super) fn print_box(bytes: &[u8], out: &mut Vec<u8>) -> Read {
    points(Wire(bytes), 2, out)
}

/// `((x,y),…)` if it is closed, `[(x,y),…]` if it is open.
pub(super) fn print_path(bytes: &[u8], out: &mut Vec<u8>) -> Read {
    let mut wire = Wire(bytes);
    let (open, close) = match wire.u8()? {
        0 => (b'[', b']'),
        1 => (b'(', b')'),
        _ => return Err(BadValue::malformed("a path is neither open nor closed")),
    };
    let count = wire.count()?;
    out.push(open);
    points(wire, count, out)?;
    out.push(close);
    Ok(())
}

/// `((x,y),…)`
pub(super) fn print_polygon(bytes: &[u8], out: &mut Vec<u8>) -> Read {
    let mut wire = Wire(bytes);
    let count = wire.count()?;
    out.push(b'(');
    points(wire, count, out)?;
    out.push(b')');
    Ok(())
}

/// `{A,B,C}`
pub(super) fn print_line(bytes: &[u8], out: &mut Vec<u8>) -> Read {
    let mut wire = Wire(bytes);
    out.push(b'{');
    print64(wire.f64()?, out);
    out.push(b',');
    print64(wire.f64()?, out);
    out.push(b',');
    print64(wire.f64()?, out);
    out.push(b'}');
    wire.end()
}

/// `<(x,y),r>`
pub(super) fn print_circle(bytes: &[u8], out: &mut Vec<u8>) -> Read {
    let mut wire = Wire(bytes);
    out.push(b'<');
    point(&mut wire, out)?;
    out.push(b',');
    print64(wire.f64()?, out);
    out.push(b'>');
    wire.end()
}

fn point(wire: &mut Wire<'_>, out: &mut Vec<u8>) -> Read {
    out.push(b'(');
    print64(wire.f64()?, out);
    out.push(b',');
    print64(wire.f64()?, out);
    out.push(b')');
    Ok(())
}

/// So many points, which must be all that is left.
fn points(mut wire: Wire<'_>, count: usize, out: &mut Vec<u8>) -> Read {
    for index in 0..count {
        if index > 0 {
            out.push(b',');
        }
        point(&mut wire, out)?;
    }
    wire.end()
}
