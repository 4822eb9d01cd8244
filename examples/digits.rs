//! Classifies handwritten digits: `cargo run --release --example digits`.
//!
//! Reads the pictures that the model in `models/` was not trained on, classifies all of them in one run, shows the first
//! few, and tells the accuracy.

use ndarray::{Array4, Axis};
use ortx::{Session, Tensor};
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let (pictures, labels) = read_digits(&models.join("digits_test.bin"))?;

    let session = Session::from_file(models.join("digits.onnx"))?;
    for io in session.inputs() {
        println!("input  {} {}", io.name, io.fact);
    }
    for io in session.outputs() {
        println!("output {} {}", io.name, io.fact);
    }

    let image = Tensor::from_array(pictures.view())?;
    let outputs = session.run(&[("image", image)])?;
    let probabilities = outputs[0].as_tensor()?.view::<f32>()?;

    let mut right = 0;
    for (i, (row, &label)) in probabilities.axis_iter(Axis(0)).zip(&labels).enumerate() {
        let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |b| b.0);
        right += usize::from(best == usize::from(label));
        if i < 3 {
            println!("\nlabel {label}, recognised {best} ({:.1} %)", 100.0 * row[best]);
            for line in pictures.index_axis(Axis(0), i).index_axis(Axis(0), 0).rows() {
                let shades: String =
                    line.iter().map(|x| [' ', '.', ':', '+', '#'][(x * 4.0).round() as usize]).collect();
                println!("  {shades}");
            }
        }
    }
    println!("\n{right} of {} right: {:.1} %", labels.len(), 100.0 * right as f64 / labels.len() as f64);
    Ok(())
}

/// Pictures in 0..1 and their labels; the layout of the file stands at the head of `scripts/train_digits.py`.
fn read_digits(path: &Path) -> Result<(Array4<f32>, Vec<u8>), Box<dyn Error>> {
    let file = std::fs::read(path)?;
    let rest = file.strip_prefix(b"DIGITS01").ok_or("no file of digits")?;
    let (head, rest) = rest.split_at_checked(16).ok_or("the file is cut off")?;
    let number =
        |i: usize| u32::from_le_bytes([head[4 * i], head[4 * i + 1], head[4 * i + 2], head[4 * i + 3]]) as usize;
    let (count, height, width, levels) = (number(0), number(1), number(2), number(3));
    let records: Vec<&[u8]> = rest.chunks_exact(1 + height * width).collect();
    if records.len() != count {
        return Err("the file is cut off".into());
    }
    let pixels = records.iter().flat_map(|r| &r[1..]).map(|&p| f32::from(p) / levels as f32).collect();
    Ok((Array4::from_shape_vec((count, 1, height, width), pixels)?, records.iter().map(|r| r[0]).collect()))
}
