//! GGUF files made of Hugging Face folders: the same bits as the folder.

use anyhow::{Context, Result, ensure};
use cpu::{Cpu, CpuOptions};
use it::exported::{bits, export, scout, toy, write};
use it::{Goldens, Toy};
use tensor::Reference;

#[test]
fn a_gguf_file_gives_the_bits_of_its_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    scout(&folder.path().join("scout"))?;
    let mut n_images = 0;
    // The dense toy's components pair up otherwise in its folder: scores add them in another order, and frequencies of the
    // blended band may be an ulp off. Eight terms a score and four layers stay within the goldens' own tolerance.
    for (model, second_norm, limit) in [("scout", "ln2", 0.0), ("scout", "attn_post_norm", 0.0), ("llama", "ln2", 2e-5)]
    {
        let source = if model == "scout" { folder.path().join(model) } else { toy(model) };
        let gguf = folder.path().join(format!("{model}-{second_norm}"));
        std::fs::create_dir_all(&gguf)?;
        let (decoder, projector) = export(&source, "f32")?;
        write(&gguf.join("model.gguf"), &decoder, 7)?;
        if let Some(mut projector) = projector {
            // Some converters name the second norm after a later model's.
            projector.tensors.iter_mut().for_each(|t| t.name = t.name.replace(".ln2.", &format!(".{second_norm}.")));
            write(&gguf.join("mmproj-model.gguf"), &projector, 1000)?;
        }
        let of_folder = Toy::load(Cpu::new(CpuOptions::default()), &source)?;
        let of_file = Toy::load(Cpu::new(CpuOptions::default()), &gguf)?;
        assert_eq!(of_file.patch, of_folder.patch);
        for (name, prompt) in Goldens::open(&toy(model))?.prompts() {
            let ids = prompt.ids("input_ids")?;
            let pixels = prompt.has("pixel_values").then(|| prompt.values("pixel_values")).transpose()?;
            n_images += usize::from(pixels.is_some());
            let want = of_folder.run(&ids, pixels.as_deref(), 16)?;
            let got = of_file.run(&ids, pixels.as_deref(), 16)?;
            assert_eq!(got.len(), want.len());
            assert!(limit > 0.0 || bits(&got) == bits(&want), "{model} {name}");
            for (site, want) in &want {
                let got = got.get(site).with_context(|| format!("{model} {name} has no {site}"))?;
                let far = want.iter().zip(got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(got.len() == want.len() && far <= limit, "{model} {name} {site}: {far}");
            }
        }
    }
    ensure!(n_images > 0, "no golden of the toys has an image");
    Ok(())
}

#[test]
fn every_stored_format_gives_the_bits_of_reference() -> Result<()> {
    let folder = tempfile::tempdir()?;
    scout(&folder.path().join("scout"))?;
    let ids: Vec<u32> = (0..40).map(|i| 3 + i * 7 % 100).collect();
    let mut all: Vec<Vec<u32>> = Vec::new();
    // Rows of the toy are 32 and 64 long: too short for the formats with blocks of 256.
    let names = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"];
    for name in names {
        let path = folder.path().join(format!("{name}.gguf"));
        let (decoder, _) = export(&folder.path().join("scout"), name)?;
        write(&path, &decoder, 5)?;
        let want = Toy::load(Reference, &path)?.run(&ids, None, 16)?;
        for n_threads in [1, 2] {
            let options = CpuOptions { threads: std::num::NonZeroUsize::new(n_threads), isa: None };
            let got = Toy::load(Cpu::new(options), &path)?.run(&ids, None, 7)?;
            assert_eq!(bits(&got), bits(&want), "{name} on {n_threads} threads");
        }
        let logits = want.get("logits").context("logits")?;
        ensure!(logits.iter().all(|v| v.is_finite()), "{name}");
        all.push(logits.iter().map(|v| v.to_bits()).collect());
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), names.len(), "two formats give the same numbers");
    Ok(())
}

#[test]
fn a_model_that_gguf_files_can_not_tell_is_refused() -> Result<()> {
    for (model, names) in [("scout", "query scaling by position"), ("maverick", "query scaling by position")] {
        let refused = export(&toy(model), "f32").err().with_context(|| format!("{model} is taken"))?.to_string();
        assert!(refused.contains(names) && refused.contains("8192"), "{model}: {refused}");
    }
    let folder = tempfile::tempdir()?;
    scout(folder.path())?;
    let config = folder.path().join("config.json");
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(&config, text.replacen("\"no_rope_layers\":[1,1,1,0", "\"no_rope_layers\":[1,1,0,1", 1))?;
    let refused = export(folder.path(), "f32").err().context("another layer is unrotated")?.to_string();
    assert!(refused.starts_with("layer 2 is "), "{refused}");
    Ok(())
}
