//! Packed files, and experts that stay in their files: the same bits as with all weights in memory.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use cpu::{Cpu, CpuOptions, ExpertStats};
use formats::Checkpoint;
use formats::gguf;
use it::Toy;
use it::exported::{bits, export, scout, write};
use llama::{Batch, Input, PackedPlan, PageRun, Row};
use tensor::{Device, KvFormat, PAGE_LEN, Reference, packed};

const N_LAYERS: usize = 8;

fn device(n_threads: usize) -> Cpu {
    Cpu::new(CpuOptions { threads: std::num::NonZeroUsize::new(n_threads), ..Default::default() })
}

/// Writes the model in `folder` to `path`, by the recipe `to`.
fn store(folder: &Path, path: &Path, to: &str) -> Result<()> {
    write(path, &export(folder, to)?.0, 1000)
}

/// Writes the packed form of `from` to `to`.
fn pack(from: &Path, to: &Path) -> Result<()> {
    let checkpoint = Checkpoint::open(from)?;
    let dev = device(2);
    let plan = PackedPlan::new(to, &checkpoint)?;
    let bytes = plan.file_bytes();
    ensure!(plan.write(to, &|source, matrix| dev.pack(source, matrix), &mut |_| true)?, "it was given up");
    ensure!(std::fs::metadata(to)?.len() == bytes as u64, "the file is not as long as planned");
    Ok(())
}

#[test]
fn a_packed_file_gives_the_bits_of_the_file_it_was_made_of() -> Result<()> {
    let folder = tempfile::tempdir()?;
    scout(&folder.path().join("hf"))?;
    let ids: Vec<u32> = (0..40).map(|i| 3 + i * 7 % 100).collect();
    let mut n_formats = 0;
    // Rows of the toy are 32 and 64 long: too short for the formats with blocks of 256.
    for format in ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"] {
        let path = folder.path().join(format!("{format}.gguf"));
        store(&folder.path().join("hf"), &path, format)?;
        let packed = path.with_extension("puna");
        pack(&path, &packed)?;
        let want = Toy::load(device(2), &path)?.run(&ids, None, 16)?;
        for n_threads in [1, 2] {
            let got = Toy::load(device(n_threads), &packed)?.run(&ids, None, 7)?;
            assert_eq!(bits(&got), bits(&want), "{format} on {n_threads} threads");
        }
        let refusal = Toy::load(Reference, &packed).err().context("Reference reads row groups")?;
        assert!(format!("{refusal:#}").contains("only the cpu device reads"), "{refusal:#}");
        n_formats += 1;
    }
    assert_eq!(n_formats, 3 + 5);
    let other = folder.path().join("other.puna");
    let twice = PackedPlan::new(&other, &Checkpoint::open(&folder.path().join("q8_0.puna"))?).err();
    assert!(twice.context("packed twice")?.to_string().contains("packed already"));
    let mut bytes = std::fs::read(folder.path().join("q8_0.puna"))?;
    let key = gguf::LAYOUT_KEY.as_bytes();
    let at = bytes.windows(key.len()).position(|window| window == key).context("the key")? + key.len() + 4;
    assert_eq!(bytes[at..at + 4], packed::VERSION.to_le_bytes());
    bytes[at] += 1;
    std::fs::write(&other, bytes)?;
    let error = Checkpoint::open(&other).err().context("another layout is read")?.to_string();
    let field = format!("puna.packed.layout: is {}", packed::VERSION + 1);
    assert!(error.contains(&field) && error.contains("another version"), "{error}");
    Ok(())
}

/// The three forms that experts can be read from, input-major, row by row and packed, each with two sizes of a cache that
/// holds some experts and not all.
fn forms(folder: &Path) -> Result<[(std::path::PathBuf, [usize; 2]); 3]> {
    scout(&folder.join("hf"))?;
    let (rows, packed) = (folder.join("model.gguf"), folder.join("model.puna"));
    store(&folder.join("hf"), &rows, "q4_0")?;
    pack(&rows, &packed)?;
    Ok([(folder.join("hf"), [150_000, 300_000]), (rows, [50_000, 70_000]), (packed, [450_000, 600_000])])
}

/// Experts of one map of one layer that there are.
const N_UNITS: u64 = 2 * N_LAYERS as u64 * 4;

/// The logits of every row, in pieces of `piece`, with nobody looking: who looks makes the model compute some maps twice.
fn logits(toy: &Toy<Cpu>, ids: &[u32], piece: usize) -> Result<Vec<u32>> {
    let n_pages = ids.len().div_ceil(PAGE_LEN);
    let mut cache = toy.model.decoder.cache(&toy.dev, n_pages, n_pages, KvFormat::F32)?;
    let pages: Vec<u32> = (0..u32::try_from(n_pages)?).collect();
    let run = PageRun { pages: &pages, first_position: 0 };
    let row = |position: usize| {
        let input = Input::Token(ids[position]);
        Row { input, position, global: run, chunked: run, wants_logits: true }
    };
    let mut all = Vec::new();
    for begin in (0..ids.len()).step_by(piece) {
        let rows: Vec<Row<'_>> = (begin..ids.len().min(begin + piece)).map(row).collect();
        let batch = Batch { rows: &rows, features: &[] };
        let logits = toy.model.decoder.forward(&toy.dev, &mut cache, &batch, &mut ())?.context("logits")?;
        all.extend(toy.dev.download(&logits).iter().map(|value| value.to_bits()));
    }
    Ok(all)
}

fn stats(toy: &Toy<Cpu>) -> Result<ExpertStats> {
    toy.dev.expert_stats().context("there is a cache")
}

#[test]
fn experts_in_their_files_give_the_same_bits_with_a_cache_of_any_size() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ids: Vec<u32> = (0..40).map(|i| 3 + i * 7 % 100).collect();
    let mut n_runs = 0;
    for (path, [small, large]) in forms(folder.path())? {
        let want = logits(&Toy::load(device(2), &path)?, &ids, 16)?;
        for (n_threads, limit_bytes) in [(1, 0), (2, 0), (1, small), (2, large), (2, 1 << 30)] {
            let what = format!("{} with {limit_bytes} bytes on {n_threads} threads", path.display());
            let toy = Toy::load(device(n_threads).with_expert_cache(limit_bytes), &path)?;
            // All rows in one step: each expert that is chosen is read once.
            assert!(logits(&toy, &ids, ids.len())? == want, "{what}");
            let whole = stats(&toy)?;
            assert!((N_LAYERS as u64 * 2..=N_UNITS).contains(&whole.n_asked), "{what}: {whole:?}");
            assert_eq!(whole.n_hits, 0, "{what}: an expert was wanted twice in one step");
            assert!(whole.bytes_read > 0 && whole.bytes_read.is_multiple_of(whole.n_asked), "{what}: {whole:?}");
            // Row by row, as answers are made.
            assert!(logits(&toy, &ids, 1)? == want, "{what}");
            let single = stats(&toy)?.since(&whole);
            assert_eq!(single.n_asked, 2 * (N_LAYERS * ids.len()) as u64, "{what}");
            let n_read = single.n_asked - single.n_hits;
            if limit_bytes == 1 << 30 {
                assert_eq!(n_read, 0, "{what}: everything fits and was read before");
            } else if limit_bytes == 0 {
                assert!(n_read > 4 * N_UNITS, "{what}: {n_read} of {} were read", single.n_asked);
                assert!(single.cache_bytes < 100_000, "{what}: {single:?}");
            } else {
                assert!(single.n_hits > 0 && n_read > 0 && single.cache_bytes <= limit_bytes, "{what}: {single:?}");
            }
            n_runs += 1;
        }
    }
    assert_eq!(n_runs, 15);
    Ok(())
}

#[test]
fn a_file_that_shrinks_fails_the_step_that_needs_it_and_nothing_else() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ids: Vec<u32> = (0..40).map(|i| 3 + i * 7 % 100).collect();
    for (path, _) in forms(folder.path())? {
        let file = if path.is_dir() { path.join("model.safetensors") } else { path.clone() };
        let content = std::fs::read(&file)?;
        let toy = Toy::load(device(2).with_expert_cache(0), &path)?;
        let want = toy.run(&ids, None, 16)?;
        let open = || std::fs::File::options().write(true).open(&file);
        open()?.set_len(4096)?;
        let error = toy.run(&ids, None, 16).err().context("it computed with experts that are gone")?;
        let name = file.file_name().and_then(|name| name.to_str()).context("a name")?;
        assert!(format!("{error:#}").contains(name), "{error:#}");
        assert!(format!("{error:#}").contains("shortened"), "{error:#}");
        std::io::Write::write_all(&mut open()?, &content)?;
        assert_eq!(bits(&toy.run(&ids, None, 16)?), bits(&want), "{}", path.display());
    }
    Ok(())
}
