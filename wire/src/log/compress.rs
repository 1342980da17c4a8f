//! The one place that names the compressor, zstd. Without the feature `compress` there is none, and a log that needs it
//! is not opened.
//!
//! Level 1: on commits of some tens of different hosts' samples it was smaller and no slower than LZ4, and level 3 gained
//! little for nearly twice the time. `scripts/bench.sh server` prints what the journal costs with it.

#[cfg(any(test, feature = "compress"))]
pub(super) use with::{Compressor, Decompressor};
#[cfg(not(any(test, feature = "compress")))]
pub(super) use without::{Compressor, Decompressor};

/// Whether compressed logs can be written and read.
pub(super) const IS_AVAILABLE: bool = cfg!(any(test, feature = "compress"));

#[cfg(any(test, feature = "compress"))]
mod with {
    use std::{fmt, io};

    const LEVEL: i32 = 1;

    /// A context, some hundreds of KiB.
    pub(in super::super) struct Compressor(zstd::bulk::Compressor<'static>);

    /// A context, made when it is first needed: some 100 KiB.
    #[derive(Default)]
    pub(in super::super) struct Decompressor(Option<zstd::bulk::Decompressor<'static>>);

    impl Compressor {
        pub(in super::super) fn new() -> io::Result<Self> {
            zstd::bulk::Compressor::new(LEVEL).map(Self)
        }

        /// Puts `plain`, compressed, in the place of what `packed` holds.
        pub(in super::super) fn compress(&mut self, plain: &[u8], packed: &mut Vec<u8>) -> io::Result<()> {
            packed.clear();
            packed.reserve(zstd::zstd_safe::compress_bound(plain.len()));
            self.0.compress_to_buffer(plain, packed).map(drop)
        }
    }

    impl Decompressor {
        /// Puts what `packed` holds in the place of what `plain` holds. Fails unless it is `len` bytes, the most for
        /// which memory is taken.
        pub(in super::super) fn decompress(
            &mut self,
            packed: &[u8],
            len: usize,
            plain: &mut Vec<u8>,
        ) -> io::Result<()> {
            let context = match &mut self.0 {
                Some(context) => context,
                none => none.insert(zstd::bulk::Decompressor::new()?),
            };
            plain.clear();
            plain.reserve_exact(len);
            let done = context.decompress_to_buffer(packed, plain)?;
            if done == len { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
        }
    }

    impl fmt::Debug for Compressor {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Compressor")
        }
    }

    impl fmt::Debug for Decompressor {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Decompressor")
        }
    }
}

#[cfg(not(any(test, feature = "compress")))]
mod without {
    use std::io;

    /// There is none.
    #[derive(Debug)]
    pub(in super::super) enum Compressor {}

    /// Reads nothing.
    #[derive(Debug, Default)]
    pub(in super::super) struct Decompressor;

    impl Compressor {
        pub(in super::super) fn new() -> io::Result<Self> {
            let why = "this build of Vitals does not compress";
            Err(io::Error::new(io::ErrorKind::Unsupported, why))
        }

        pub(in super::super) fn compress(&mut self, _: &[u8], _: &mut Vec<u8>) -> io::Result<()> {
            match *self {}
        }
    }

    impl Decompressor {
        pub(in super::super) fn decompress(&mut self, _: &[u8], _: usize, _: &mut Vec<u8>) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }
}
