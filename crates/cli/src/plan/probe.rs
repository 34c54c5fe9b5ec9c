//! Measuring this machine: the rates that a forecast needs, by the kernels that will run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use cpu::Cpu;
use tensor::{Device, Format, KvFormat, OpError, Orientation, PAGE_LEN, RowKeys, WeightSource};

use super::machine::{GIB, Kernel, Machine};
use super::system;
use crate::memory;

/// Time for each rate.
const BUDGET: Duration = Duration::from_millis(120);
/// Inputs of the maps that are measured.
const N_IN: usize = 4096;

/// Measures the machine with the threads of `dev`, the kernels of `formats`, keys and values stored as `kv`.
///
/// # Errors
/// If an op refuses, which would be a defect.
pub fn measure(dev: &Cpu, formats: &[Format], kv: KvFormat) -> Result<Machine, OpError> {
    let roofs = dev.roofs(BUDGET * 4);
    let cache_bytes = system::cache_bytes();
    let cached = cache_bytes.map(|bytes| dev.read_rate(bytes / 2, BUDGET));
    let total = memory::total_bytes().unwrap_or(0);
    let free = memory::free_bytes().unwrap_or(total);
    let mut kernels = BTreeMap::new();
    for format in formats {
        kernels.insert(format.name().to_owned(), kernel(dev, *format, cache_bytes.unwrap_or(1 << 25))?);
    }
    Ok(Machine {
        name: system::cpu_name(),
        threads: dev.threads(),
        ram_gib: total as f64 / GIB,
        system_gib: total.saturating_sub(free) as f64 / GIB,
        memory_gb_s: roofs.memory / 1e9,
        disk_gb_s: None,
        cache_mib: cache_bytes.map_or(0.0, |bytes| bytes as f64 / f64::from(1 << 20)),
        cache_gb_s: cached.map(|rate| rate / 1e9),
        int8_gop_s: roofs.int8 / 1e9,
        f32_gflop_s: roofs.f32 / 1e9,
        overhead_us: 1e6 * overhead(dev)?,
        values_g_s: Some(values(dev)? / 1e9),
        attention_g_s: Some([attention(dev, 1, kv)? / 1e9, attention(dev, 64, kv)? / 1e9]),
        kernels,
    })
}

/// The median of the seconds that `call` takes, over [`BUDGET`]: what it usually takes, beside whatever else runs.
fn seconds(mut call: impl FnMut() -> Result<(), OpError>) -> Result<f64, OpError> {
    call()?;
    let (began, mut all) = (Instant::now(), Vec::new());
    while began.elapsed() < BUDGET || all.len() < 3 {
        let call_began = Instant::now();
        call()?;
        all.push(call_began.elapsed().as_secs_f64());
    }
    Ok(crate::bench::median(&all))
}

/// A map of `n_out` outputs. Its bits are of no account, so they are all zero: kernels take the same time.
fn map(dev: &Cpu, format: Format, n_out: usize, n_in: usize) -> Result<cpu::Matrix, OpError> {
    let described = WeightSource::described(format, Orientation::OutIn, [1, n_out, n_in])?;
    let bytes = vec![0; described.size_bytes()];
    dev.matrix(&[WeightSource::new(bytes.into(), format, Orientation::OutIn, [1, n_out, n_in])?])
}

fn rows(dev: &Cpu, n_rows: usize, n_in: usize) -> Result<cpu::Tensor, OpError> {
    let values: Vec<f32> = (0..n_rows * n_in).map(|i| (i % 17) as f32 - 8.0).collect();
    dev.upload(&values, n_in)
}

fn kernel(dev: &Cpu, format: Format, cache_bytes: usize) -> Result<Kernel, OpError> {
    // Small enough for the caches of the cores, so that arithmetic alone is measured.
    let small = map(dev, format, 256, N_IN)?;
    let products = (256 * N_IN) as f64;
    let one = rows(dev, 1, N_IN)?;
    let many = rows(dev, 64, N_IN)?;
    let one_row = products / seconds(|| dev.linear(&small, None, &one).map(drop))?;
    let many_rows = 64.0 * products / seconds(|| dev.linear(&small, None, &many).map(drop))?;
    let row_bytes = small.size_bytes() / 256;
    let large = map(dev, format, (4 * cache_bytes / row_bytes).next_multiple_of(16), N_IN)?;
    let memory = large.size_bytes() as f64 / seconds(|| dev.linear(&large, None, &one).map(drop))?;
    Ok(Kernel { memory_gb_s: memory / 1e9, one_row_g_s: one_row / 1e9, many_rows_g_s: many_rows / 1e9 })
}

/// Seconds of an op that does next to nothing.
fn overhead(dev: &Cpu) -> Result<f64, OpError> {
    let map = map(dev, Format::F32, 256, 256)?;
    let x = rows(dev, 1, 256)?;
    seconds(|| dev.linear(&map, None, &x).map(drop))
}

/// Numbers a second over norms and gates.
fn values(dev: &Cpu) -> Result<f64, OpError> {
    let x = rows(dev, 64, N_IN)?;
    let n = (64 * N_IN) as f64;
    let norm = seconds(|| dev.rms_norm(&x, None, N_IN, 1e-5).map(drop))?;
    let copy = seconds(|| dev.columns(&x, 0..N_IN / 2).map(drop))?;
    // A step has about as many copies as norms.
    Ok(1.5 * n / (norm + copy))
}

/// Multiply-adds a second of `n_rows` rows that see about 1024 positions.
fn attention(dev: &Cpu, n_rows: usize, kv: KvFormat) -> Result<f64, OpError> {
    let (n_positions, n_heads, head_len, group) = (1024, 8, 128, 4);
    let ids: Vec<u32> = (0..n_positions as u32 / PAGE_LEN as u32).collect();
    let mut pages = dev.pages(ids.len(), n_heads, head_len, kv)?;
    let keys = rows(dev, n_positions, n_heads * head_len)?;
    dev.store(&mut pages, &keys, &keys, &(0..n_positions).collect::<Vec<_>>())?;
    let q = rows(dev, n_rows, group * n_heads * head_len)?;
    let keys: Vec<RowKeys<'_>> = (n_positions - n_rows..n_positions)
        .map(|position| RowKeys { pages: &ids, first_position: 0, begin: 0, end: position + 1 })
        .collect();
    let seen: usize = keys.iter().map(|row| row.end).sum();
    let products = 2 * seen * group * n_heads * head_len;
    Ok(products as f64 / seconds(|| dev.attention(&q, &pages, &keys).map(drop))?)
}

/// Bytes a second that the disk of `path` gives, past the system's cache: of the file itself, or of one that is written
/// into the folder and deleted. `None` where the system can not read past its cache, or nothing can be written.
pub fn disk(path: &Path) -> Option<f64> {
    if path.is_file() && path.metadata().is_ok_and(|about| about.len() >= DISK_BYTES) {
        return read_directly(path);
    }
    let folder = if path.is_dir() { path } else { path.parent()? };
    let name = folder.join(format!(".puna-probe-{}", std::process::id()));
    let written = || -> std::io::Result<()> {
        let mut file = File::create_new(&name)?;
        let piece = vec![0x5Au8; DISK_PIECE];
        for _ in 0..DISK_BYTES / DISK_PIECE as u64 {
            file.write_all(&piece)?;
        }
        file.sync_all()
    };
    let rate = written().ok().and_then(|()| read_directly(&name));
    // If it is gone already, so much the better.
    let _ = std::fs::remove_file(&name);
    rate
}

/// Bytes that the disk probe reads.
const DISK_BYTES: u64 = 1 << 27;
/// Bytes of one read: about an expert's row groups.
const DISK_PIECE: usize = 1 << 23;
/// What direct reads are aligned to: every disk's blocks divide it.
const DISK_ALIGN: usize = 4096;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn open_directly(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // O_DIRECT; its value differs by architecture.
    const DIRECT: i32 = if cfg!(target_arch = "x86_64") { 0o40_000 } else { 0o200_000 };
    std::fs::OpenOptions::new().read(true).custom_flags(DIRECT).open(path)
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn open_directly(_: &Path) -> std::io::Result<File> {
    Err(std::io::ErrorKind::Unsupported.into())
}

fn read_directly(path: &Path) -> Option<f64> {
    let mut file = open_directly(path).ok()?;
    let mut room = vec![0u8; DISK_PIECE + DISK_ALIGN];
    let begin = room.as_ptr().align_offset(DISK_ALIGN);
    let piece = room.get_mut(begin..begin + DISK_PIECE)?;
    let began = Instant::now();
    let mut n_read = 0;
    file.seek(SeekFrom::Start(0)).ok()?;
    while n_read < DISK_BYTES {
        match file.read(piece).ok()? {
            0 => break,
            n => n_read += n as u64,
        }
    }
    (n_read > 0).then(|| n_read as f64 / began.elapsed().as_secs_f64())
}
