//! Generates code from the .proto files with a compiler in Rust: no protoc is needed.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let files: Vec<PathBuf> = ["common", "metadata", "chunk", "cluster", "command", "state"]
        .iter()
        .map(|name| root.join(format!("dfs/v1/{name}.proto")))
        .collect();
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    let descriptors = protox::compile(&files, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::SizedCodec")
        // Messages that carry key material must not be printable.
        .skip_debug([
            "dfs.v1.ChunkSecret",
            "dfs.v1.PageChunk",
            "dfs.v1.ReadChunk",
            "dfs.v1.OpenReadResponse",
            "dfs.v1.PlainChunk",
            "dfs.v1.PlanChunksRequest",
            "dfs.v1.PlanChunksResponse",
            "dfs.v1.AppendPageRequest",
            "dfs.v1.PutInlineRequest",
            "dfs.v1.RegisterNodeResponse",
            "dfs.v1.PrincipalInfo",
            "dfs.v1.ListPrincipalsResponse",
        ])
        .compile_fds(descriptors)?;
    Ok(())
}
