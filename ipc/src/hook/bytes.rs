//! Fields to bytes and back: each read is bounded, nothing is left over.

use super::{HEADER, Malformed};

/// A frame in the making.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// A frame whose body begins with `tag`.
    pub(super) fn new(tag: u8) -> Self {
        let mut frame = vec![0; HEADER];
        frame.push(tag);
        Self(frame)
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }

    pub(super) fn option(&mut self, value: Option<&[u8]>) {
        self.u8(u8::from(value.is_some()));
        self.bytes(value.unwrap_or_default());
    }

    pub(super) fn text(&mut self, value: &str, limit: usize) -> Result<(), Malformed> {
        check(value.as_bytes(), limit)?;
        let length = u16::try_from(value.len()).map_err(|_| Malformed::Text)?;
        self.bytes(&length.to_be_bytes());
        self.bytes(value.as_bytes());
        Ok(())
    }

    /// The frame. Its fields are bounded, so the body is far shorter than the longest one.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = (self.0.len() - HEADER) as u32;
        self.0[..HEADER].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

/// The rest of a body.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(body: &'a [u8]) -> Result<Self, Malformed> {
        if body.len() > super::MAX_FRAME { Err(Malformed::Length(body.len())) } else { Ok(Self(body)) }
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::Short)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[value]| value)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Malformed::Tag(other)),
        }
    }

    pub(super) fn option<const N: usize>(&mut self) -> Result<Option<[u8; N]>, Malformed> {
        if self.flag()? { self.array().map(Some) } else { Ok(None) }
    }

    pub(super) fn str(&mut self, limit: usize) -> Result<&'a str, Malformed> {
        let length = u16::from_be_bytes(self.array()?);
        let bytes = self.take(length.into())?;
        check(bytes, limit)?;
        std::str::from_utf8(bytes).map_err(|_| Malformed::Text)
    }

    pub(super) fn text(&mut self, limit: usize) -> Result<String, Malformed> {
        self.str(limit).map(str::to_owned)
    }

    /// `value`, if all bytes are used up.
    pub(super) fn finish<T>(self, value: T) -> Result<T, Malformed> {
        if self.0.is_empty() { Ok(value) } else { Err(Malformed::Leftover) }
    }
}

fn check(text: &[u8], limit: usize) -> Result<(), Malformed> {
    if text.is_empty() || text.len() > limit || text.contains(&0) { Err(Malformed::Text) } else { Ok(()) }
}
