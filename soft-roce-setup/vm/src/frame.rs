//! The frames that host and guest exchange over one virtio-serial port.
//!
//! A frame is a kind byte, a little-endian `u32` length and that many bytes of payload.

use std::io::{self, Read};

/// Longest payload accepted; arguments and environment of a command fit (`execve(2)` allows less).
const LONGEST: u32 = 16 << 20;

/// Where a piece of data belongs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stream {
    Input,
    Output,
    Error,
    /// What the peer prints, both of its streams together.
    Peer,
    /// What the guest's terminal shows, where the caller has one.
    Terminal,
}

/// One message; the comment says who sends it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Frame {
    /// Receiver of a stream: it will not take any more.
    Closed(Stream),
    /// Receiver of a stream: so many more bytes may be sent.
    Credit(Stream, u32),
    /// Sender of a stream.
    Data(Stream, Vec<u8>),
    /// Sender of a stream: all has been sent.
    End(Stream),
    /// Guest: the command has ended with this status.
    Exit(u8),
    /// Guest: the device or the command could not be set up.
    Failed(String),
    /// Guest: booted, waiting for `Start`.
    Hello,
    /// Guest: the peer failed by itself, with this status.
    PeerFailed(u8),
    /// Host: for the command's process group.
    Signal(i32),
    /// Host: a `Spec`, encoded.
    Start(Vec<u8>),
    /// Guest: the command runs.
    Started,
    /// Host: rows and columns of the terminal.
    WindowSize(u16, u16),
}

impl Stream {
    fn code(self) -> u8 {
        match self {
            Self::Input => 0,
            Self::Output => 1,
            Self::Error => 2,
            Self::Peer => 3,
            Self::Terminal => 4,
        }
    }

    fn from_code(code: u8) -> io::Result<Self> {
        match code {
            0 => Ok(Self::Input),
            1 => Ok(Self::Output),
            2 => Ok(Self::Error),
            3 => Ok(Self::Peer),
            4 => Ok(Self::Terminal),
            _ => Err(malformed("unknown stream")),
        }
    }
}

impl Frame {
    /// The bytes to put on the wire.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, first, rest): (u8, Vec<u8>, &[u8]) = match self {
            Self::Closed(stream) => (1, vec![stream.code()], &[]),
            Self::Credit(stream, bytes) => {
                let mut payload = vec![stream.code()];
                payload.extend(bytes.to_le_bytes());
                (2, payload, &[])
            }
            Self::Data(stream, bytes) => (3, vec![stream.code()], bytes),
            Self::End(stream) => (4, vec![stream.code()], &[]),
            Self::Exit(status) => (5, vec![*status], &[]),
            Self::Failed(message) => (6, Vec::new(), message.as_bytes()),
            Self::Hello => (7, Vec::new(), &[]),
            Self::PeerFailed(status) => (8, vec![*status], &[]),
            Self::Signal(signal) => (9, signal.to_le_bytes().to_vec(), &[]),
            Self::Start(spec) => (10, Vec::new(), spec),
            Self::Started => (11, Vec::new(), &[]),
            Self::WindowSize(rows, columns) => {
                let mut payload = rows.to_le_bytes().to_vec();
                payload.extend(columns.to_le_bytes());
                (12, payload, &[])
            }
        };
        let length = u32::try_from(first.len() + rest.len()).unwrap_or(u32::MAX);
        let mut frame = Vec::with_capacity(5 + first.len() + rest.len());
        frame.push(kind);
        frame.extend(length.to_le_bytes());
        frame.extend(first);
        frame.extend(rest);
        frame
    }

    /// The next frame, `None` at a clean end.
    pub(crate) fn read(source: &mut impl Read) -> io::Result<Option<Self>> {
        let mut kind = [0];
        loop {
            match source.read(&mut kind) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut length = [0; 4];
        source.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length);
        if length > LONGEST {
            return Err(malformed("frame too long"));
        }
        let mut payload = vec![0; length as usize];
        source.read_exact(&mut payload)?;
        Self::decode(kind[0], payload).map(Some)
    }

    fn decode(kind: u8, payload: Vec<u8>) -> io::Result<Self> {
        Ok(match kind {
            1 => Self::Closed(Stream::from_code(fixed::<1>(&payload)?[0])?),
            2 => {
                let [stream, a, b, c, d] = fixed(&payload)?;
                Self::Credit(Stream::from_code(stream)?, u32::from_le_bytes([a, b, c, d]))
            }
            3 => {
                let mut bytes = payload;
                let stream = *bytes.first().ok_or_else(|| malformed("data without a stream"))?;
                bytes.remove(0);
                Self::Data(Stream::from_code(stream)?, bytes)
            }
            4 => Self::End(Stream::from_code(fixed::<1>(&payload)?[0])?),
            5 => Self::Exit(fixed::<1>(&payload)?[0]),
            6 => Self::Failed(String::from_utf8_lossy(&payload).into_owned()),
            7 => Self::Hello,
            8 => Self::PeerFailed(fixed::<1>(&payload)?[0]),
            9 => Self::Signal(i32::from_le_bytes(fixed(&payload)?)),
            10 => Self::Start(payload),
            11 => Self::Started,
            12 => {
                let [a, b, c, d] = fixed(&payload)?;
                Self::WindowSize(u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
            }
            _ => return Err(malformed("unknown kind of frame")),
        })
    }
}

fn fixed<const N: usize>(payload: &[u8]) -> io::Result<[u8; N]> {
    payload.try_into().map_err(|_| malformed("payload of the wrong length"))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("between host and guest: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_survives_the_wire() -> io::Result<()> {
        let frames = [
            Frame::Closed(Stream::Output),
            Frame::Credit(Stream::Input, 0x0102_0304),
            Frame::Data(Stream::Peer, vec![0, 255, 10, 13]),
            Frame::Data(Stream::Error, Vec::new()),
            Frame::End(Stream::Input),
            Frame::Exit(255),
            Frame::Failed("no device".into()),
            Frame::Hello,
            Frame::PeerFailed(3),
            Frame::Signal(-2),
            Frame::Start(vec![1, 2, 3]),
            Frame::Started,
            Frame::WindowSize(50, 1000),
        ];
        let wire: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        let mut rest = wire.as_slice();
        for frame in frames {
            assert_eq!(Frame::read(&mut rest)?, Some(frame));
        }
        assert_eq!(Frame::read(&mut rest)?, None);
        Ok(())
    }

    #[test]
    fn a_cut_or_malformed_frame_is_an_error() {
        let whole = Frame::Credit(Stream::Input, 9).encode();
        for cut in 1..whole.len() {
            assert!(Frame::read(&mut &whole[..cut]).is_err(), "cut at {cut}");
        }
        let malformed: [&[u8]; 5] =
            [&[0, 0, 0, 0, 0], &[3, 0, 0, 0, 0], &[3, 1, 0, 0, 0, 9], &[5, 2, 0, 0, 0, 1, 1], &[3, 255, 255, 255, 255]];
        for bytes in malformed {
            assert!(Frame::read(&mut &*bytes).is_err(), "{bytes:?}");
        }
    }
}
