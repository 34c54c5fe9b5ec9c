//! Files that promise, or hold, much more than they weigh.

use engine::Limits;
use engine::media::audio::decode;

use crate::{Tally, file, mend_ogg, quiet};

fn crc(bytes: &[u8], n_bits: u32, polynomial: u32) -> u32 {
    let top = 1u32 << (n_bits - 1);
    let mask = top | (top - 1);
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << (n_bits - 8), |crc, _| {
            (crc << 1 ^ if crc & top != 0 { polynomial } else { 0 }) & mask
        })
    })
}

/// FLAC's description: 16-bit samples in blocks of 65,535.
fn flac_head(rate_hz: u64, n_channels: u64, n_frames: u64) -> Vec<u8> {
    let mut out = b"fLaC\x80\0\0\x22\xff\xff\xff\xff\0\0\0\0\0\0".to_vec();
    out.extend((rate_hz << 44 | (n_channels - 1) << 41 | 15 << 36 | n_frames).to_be_bytes());
    out.extend([0; 16]);
    out
}

/// A frame of 65,535 zeros a channel in about 20 bytes.
fn flac_frame(n_channels: u8, number: u32) -> Vec<u8> {
    let mut out = vec![0xff, 0xf8, 0x70, (n_channels - 1) << 4 | 8];
    // Numbers are coded as characters are in UTF-8; of those that are no characters only later ones are left out here.
    out.extend(char::from_u32(number).unwrap().to_string().bytes());
    out.extend([0xff, 0xfe]);
    out.push(crc(&out, 8, 0x07) as u8);
    for _ in 0..n_channels {
        // A constant: its head and 16 bits.
        out.extend([0, 0, 0]);
    }
    out.extend((crc(&out, 16, 0x8005) as u16).to_be_bytes());
    out
}

/// A file of Vorbis whose tables are what `book` says `n_books` times.
fn ogg_of_books(n_books: usize, book: &[(u64, usize)]) -> Vec<u8> {
    let mut bits: Vec<bool> = Vec::new();
    let mut put = |value: u64, n: usize| bits.extend((0..n as u32).map(|i| value.checked_shr(i).unwrap_or(0) & 1 == 1));
    put(n_books as u64 - 1, 8);
    for _ in 0..n_books {
        book.iter().for_each(|(value, n)| put(*value, *n));
    }
    put(0, 2000);
    let mut setup = b"\x05vorbis".to_vec();
    setup.extend(bits.chunks(8).map(|byte| byte.iter().rev().fold(0u8, |sum, bit| sum << 1 | u8::from(*bit))));
    let head = &file("tone_16k.ogg")[28..58];
    let mut out = Vec::new();
    for (i, packet) in [head, b"\x03vorbis\0\0\0\0\0\0\0\0\x01", &setup, &[0; 40]].into_iter().enumerate() {
        let mut lens = vec![255; packet.len() / 255];
        lens.push((packet.len() % 255) as u8);
        let kind = [2, 0, 0, 4][i];
        out.extend([b'O', b'g', b'g', b'S', 0, kind, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, i as u8, 0, 0, 0, 0, 0, 0, 0]);
        out.push(u8::try_from(lens.len()).unwrap());
        out.extend(lens);
        out.extend(packet);
    }
    mend_ogg(&mut out);
    out
}

/// A box of MP4.
fn mp4_box(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [&(u32::try_from(content.len()).unwrap() + 8).to_be_bytes()[..], kind, content].concat()
}

fn flac_bombs() -> Vec<(String, Vec<u8>)> {
    let mut cases = Vec::new();
    let silence = |rate: u64, n_channels: u8, n_frames: u32, promised: u64| {
        let mut bytes = flac_head(rate, u64::from(n_channels), promised);
        (0..n_frames).for_each(|i| bytes.extend(flac_frame(n_channels, i)));
        bytes
    };
    // Six minutes at 16 kHz are 88 frames: 1 kB that becomes 23 MB.
    cases.push(("six minutes in 1 kB".into(), silence(16_000, 1, 87, 0)));
    cases.push(("a day in 300 kB".into(), silence(16_000, 1, 21_000, 0)));
    cases.push(("a promise of 2 years".into(), silence(16_000, 1, 1, (1 << 36) - 1)));
    cases.push(("a long one at 192 kHz".into(), silence(192_000, 8, 11_000, 0)));
    // Marks of frames and nothing behind them.
    let mut marks = flac_head(16_000, 1, 0);
    let frame = flac_frame(1, 0);
    (0..100_000).for_each(|_| marks.extend(&frame[..8]));
    cases.push(("marks of frames".into(), marks));
    cases
}

fn ogg_bombs() -> Vec<(String, Vec<u8>)> {
    // Ordered lengths: all entries at once. Vectors from a root of one value.
    let book = |entries: u64, dimensions: u64| {
        let n_bits = (64 - entries.leading_zeros()) as usize;
        [
            (0x56_4342, 24),
            (dimensions, 16),
            (entries, 24),
            (1, 1),
            (16, 5),
            (entries, n_bits),
            (1, 4),
            (0, 64),
            (0, 4),
            (0, 1),
            (0, 1),
        ]
    };
    let mut cases = vec![
        ("a table of 16 MB, 256 times".into(), ogg_of_books(256, &book(1 << 17, 31))),
        ("a table of 2 TB".into(), ogg_of_books(1, &book((1 << 24) - 1, 65_535))),
        ("a table without dimensions".into(), ogg_of_books(1, &book(100, 0))),
        ("a table within the bound".into(), ogg_of_books(3, &book(1 << 15, 31))),
        ("a table of no entries".into(), ogg_of_books(255, &book(0, 1))),
    ];
    let page = file("tone_16k.ogg")[..58].to_vec();
    let mut streams = Vec::new();
    for i in 0..10_000u32 {
        let mut page = page.clone();
        page[14..18].copy_from_slice(&i.to_le_bytes());
        streams.extend(page);
    }
    mend_ogg(&mut streams);
    cases.push(("10,000 streams".into(), streams));
    // Pages that promise 65 kB each, inside of each other.
    let mut nested = Vec::new();
    (0..3000).for_each(|_| {
        nested.extend(b"OggS\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff");
        nested.extend([255; 255]);
    });
    nested[5] = 2;
    cases.push(("pages in pages".into(), nested));
    cases
}

/// The file with the box of tables replaced by one that promises more.
fn mp4_bombs() -> Vec<(String, Vec<u8>)> {
    let whole = file("tone_16k.m4a");
    let at = |kind: &[u8; 4]| whole.windows(4).position(|window| window == kind).unwrap();
    let with = |kind: &[u8; 4], offset: usize, value: u32| {
        let mut bytes = whole.clone();
        let place = at(kind) + 4 + offset;
        bytes[place..place + 4].copy_from_slice(&value.to_be_bytes());
        bytes
    };
    let mut cases = Vec::new();
    for value in [0, 1, 1000, 1 << 20, u32::MAX >> 1, u32::MAX] {
        for (kind, offsets) in [
            (b"stsz", &[4usize, 8, 12][..]),
            (b"stts", &[4, 8, 12]),
            (b"stsc", &[4, 8, 12]),
            (b"stco", &[4, 8]),
            (b"elst", &[4, 8, 12]),
            (b"mdhd", &[12, 16]),
            (b"mvhd", &[12, 16]),
            (b"stsd", &[4, 8]),
            (b"esds", &[4, 8]),
        ] {
            for offset in offsets {
                let name = format!("{} with {value} at {offset}", String::from_utf8_lossy(kind));
                cases.push((name, with(kind, *offset, value)));
            }
        }
    }
    let nested = (0..2000).fold(Vec::new(), |inside, _| mp4_box(b"moov", &inside));
    cases.push(("boxes in boxes".into(), [mp4_box(b"ftyp", b"M4A \0\0\0\0"), nested].concat()));
    let many = mp4_box(b"free", b"").repeat(200_000);
    cases.push(("200,000 boxes".into(), [mp4_box(b"ftyp", b"M4A \0\0\0\0"), many].concat()));
    cases
}

/// The file with its only track three times, each of the same samples.
fn mp4_of_twins() -> Vec<u8> {
    let mut bytes = file("tone_16k.m4a");
    let at = |bytes: &[u8], kind: &[u8; 4]| bytes.windows(4).position(|window| window == kind).unwrap() - 4;
    let len = |bytes: &[u8], at: usize| u32::from_be_bytes(*bytes[at..].first_chunk().unwrap()) as usize;
    let (film, track) = (at(&bytes, b"moov"), at(&bytes, b"trak"));
    // Offsets of samples stay right only if the samples come first.
    assert!(at(&bytes, b"mdat") < film);
    let twin = bytes[track..track + len(&bytes, track)].to_vec();
    let film_len = u32::try_from(len(&bytes, film) + 2 * twin.len()).unwrap();
    bytes[film..film + 4].copy_from_slice(&film_len.to_be_bytes());
    bytes.splice(track..track, twin.repeat(2));
    bytes
}

fn wav_bombs() -> Vec<(String, Vec<u8>)> {
    let head = file("pulses.wav")[..44].to_vec();
    let with = |changes: &[(usize, &[u8])], n: usize| {
        let mut bytes = head.clone();
        changes.iter().for_each(|(at, new)| bytes[*at..at + new.len()].copy_from_slice(new));
        bytes.resize(44 + n, 0);
        bytes
    };
    let streamed: (usize, &[u8]) = (40, &[0xff; 4]);
    let mut chunks = b"RIFF\xff\xff\xff\xffWAVE".to_vec();
    (0..1_000_000).for_each(|_| chunks.extend(b"junk\0\0\0\0"));
    vec![
        ("65,535 channels".into(), with(&[streamed, (22, &[0xff, 0xff]), (32, &[0xfe, 0xff])], 200_000)),
        (
            "frames of 65,535 bytes".into(),
            with(&[streamed, (22, &[0xff, 0xff]), (32, &[0xff, 0xff]), (34, &[8, 0])], 200_000),
        ),
        ("the slowest rate".into(), with(&[streamed, (24, &[0xa0, 0x0f, 0, 0])], 24_000_000)),
        ("the rarest rate".into(), with(&[streamed, (24, &[0xff, 0xed, 2, 0])], 2_000_000)),
        ("a million chunks".into(), chunks),
    ]
}

#[test]
fn audio_bombs_go_off_within_their_limits() {
    quiet();
    let mut tally = Tally::default();
    // A tenth of the limits, so that the test is short.
    let limits = Limits { audio_seconds: 360, audio_samples: 34_560_000, ..Limits::default() };
    let refused = |bytes: &[u8]| decode(bytes, None, &limits, &|| false).unwrap_err().to_string();
    for (what, why) in [
        ("a table of 16 MB, 256 times", "its tables are larger than any encoder's"),
        ("a table of 2 TB", "its tables are no encoder's"),
        ("pages in pages", "checksum"),
    ] {
        let (_, bytes) = ogg_bombs().into_iter().find(|(name, _)| name == what).unwrap();
        assert!(refused(&bytes).contains(why), "{what}: {}", refused(&bytes));
    }
    assert!(refused(&mp4_of_twins()).contains("its parts are larger than it is"), "{}", refused(&mp4_of_twins()));
    for (what, bytes) in [flac_bombs(), ogg_bombs(), mp4_bombs(), wav_bombs()].concat() {
        tally.judge(&format!("bomb {what}"), &bytes, &limits);
    }
    // Frames of 8 kbit/s: an hour is 3.6 MB. One frame, again and again, with its header's bit rate lowered.
    let mut bytes = Vec::new();
    let mut frame = vec![0u8; 24];
    frame[..4].copy_from_slice(&[0xff, 0xe3, 0x18, 0xc4]);
    (0..200_000).for_each(|_| bytes.extend(&frame));
    tally.judge("bomb frames of 8 kbit/s", &bytes, &limits);
    tally.finish("bombs");
}
