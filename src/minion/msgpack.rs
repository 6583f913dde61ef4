//! MessagePack with a bound on the memory that reading it takes (<https://github.com/msgpack/msgpack/blob/master/spec.md>).

use rmpv::Value;

/// Values in one document, keys counted. Each takes some 40 bytes of memory but may take one byte of the document, so that a file
/// of 64 MiB could fill gigabytes. A run of 10,000 states is made of about 300,000.
const MOST_VALUES: usize = 1_000_000;

/// Lists and mappings within each other.
const MOST_DEPTH: usize = 128;

/// Reads the value that the bytes begin with; `None` if it is not there as a whole, or is too much.
pub fn read(bytes: &[u8]) -> Option<Value> {
    (values(bytes)? <= MOST_VALUES).then_some(())?;
    let mut rest = bytes;
    rmpv::decode::read_value_with_max_depth(&mut rest, MOST_DEPTH).ok()
}

/// Of how many values the one that the bytes begin with is made; `None` if it is not there as a whole. Takes no memory.
fn values(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let mut seen = 0;
    let mut due = 1u64;
    while due > 0 {
        let (&marker, tail) = rest.split_first()?;
        let number = |bytes: usize| tail.get(..bytes).map(|bytes| bytes.iter().fold(0u64, |number, &byte| number << 8 | u64::from(byte)));
        // What follows the marker: bytes that are no values, and values.
        let (skip, inner) = match marker {
            0x80..=0x8f => (0, u64::from(marker & 0x0f) * 2),
            0x90..=0x9f => (0, u64::from(marker & 0x0f)),
            0xa0..=0xbf => (u64::from(marker & 0x1f), 0),
            0xc4 | 0xd9 => (1 + number(1)?, 0),
            0xc5 | 0xda => (2 + number(2)?, 0),
            0xc6 | 0xdb => (4 + number(4)?, 0),
            0xc7 => (2 + number(1)?, 0),
            0xc8 => (3 + number(2)?, 0),
            0xc9 => (5 + number(4)?, 0),
            0xcc | 0xd0 => (1, 0),
            0xcd | 0xd1 | 0xd4 => (2, 0),
            0xd5 => (3, 0),
            0xca | 0xce | 0xd2 => (4, 0),
            0xd6 => (5, 0),
            0xcb | 0xcf | 0xd3 => (8, 0),
            0xd7 => (9, 0),
            0xd8 => (17, 0),
            0xdc => (2, number(2)?),
            0xdd => (4, number(4)?),
            0xde => (2, number(2)? * 2),
            0xdf => (4, number(4)? * 2),
            // Small numbers, nil, false, true, and the one marker that is never used.
            0x00..=0x7f | 0xc0..=0xc3 | 0xe0..=0xff => (0, 0),
        };
        rest = tail.get(usize::try_from(skip).ok()?..)?;
        seen += 1;
        due = due - 1 + inner;
    }
    Some(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list_of(count: u32, item: u8) -> Vec<u8> {
        let mut bytes = vec![0xdd];
        bytes.extend(count.to_be_bytes());
        bytes.resize(bytes.len() + count as usize, item);
        bytes
    }

    #[test]
    fn a_small_file_of_many_values_is_too_much() {
        assert!(read(&list_of(999_999, 0xc0)).is_some());
        assert!(read(&list_of(1_000_000, 0xc0)).is_none());
    }

    #[test]
    fn what_is_announced_but_not_there_is_none() {
        for bytes in [&[][..], &[0xdd, 0xff, 0xff, 0xff, 0xff], &[0xdf, 0xff, 0xff, 0xff, 0xff, 0x00], &[0xdb, 0xff, 0xff, 0xff, 0xff]] {
            assert!(read(bytes).is_none(), "{bytes:x?}");
        }
    }

    #[test]
    fn every_kind_of_value_is_counted_as_it_is_read() {
        let kinds = vec![
            Value::Nil,
            true.into(),
            1.into(),
            (-1).into(),
            200.into(),
            (-100).into(),
            60_000.into(),
            (-20_000).into(),
            3_000_000_000u32.into(),
            (-2_000_000_000).into(),
            u64::MAX.into(),
            i64::MIN.into(),
            1.5f32.into(),
            1.5f64.into(),
            "x".into(),
            "x".repeat(200).into(),
            "x".repeat(300).into(),
            "x".repeat(70_000).into(),
            Value::Binary(vec![0; 3]),
            Value::Binary(vec![0; 300]),
            Value::Binary(vec![0; 70_000]),
            Value::Map(vec![(1.into(), 2.into())]),
        ];
        let extensions = [1, 2, 4, 8, 16, 3, 300, 70_000].map(|length| Value::Ext(5, vec![0; length]));
        let all: Vec<Value> = kinds.into_iter().chain(extensions).collect();
        let count = all.len() + 2 + 1;
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &Value::Array(all.clone())).unwrap();
        assert_eq!(values(&bytes), Some(count));
        assert_eq!(read(&bytes), Some(Value::Array(all)));
        for long in [Value::Array(vec![Value::Nil; 20]), Value::Map(vec![(Value::Nil, Value::Nil); 20])] {
            let mut bytes = Vec::new();
            rmpv::encode::write_value(&mut bytes, &long).unwrap();
            assert_eq!((values(&bytes).is_some(), values(&bytes[..bytes.len() - 1])), (true, None), "{long}");
        }
    }
}
