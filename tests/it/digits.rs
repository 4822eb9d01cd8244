//! The digits model that ships: it must tell the held-out digits apart, alone and in batches.

use ortx::{Session, Tensor, Value};

/// Pictures as the model takes them, and their labels. `scripts/train_digits.py` describes the layout.
fn held_out() -> (Vec<f32>, Vec<u8>) {
    let data = std::fs::read("models/digits_test.bin").unwrap();
    assert_eq!(&data[..8], b"DIGITS01");
    let number = |i: usize| u32::from_le_bytes(data[8 + 4 * i..12 + 4 * i].try_into().unwrap());
    let (count, levels) = (number(0) as usize, number(3) as f32);
    assert_eq!((number(1), number(2), data.len()), (8, 8, 24 + count * 65));
    let records = data[24..].chunks(65);
    (records.clone().flat_map(|r| &r[1..]).map(|&p| f32::from(p) / levels).collect(), records.map(|r| r[0]).collect())
}

fn probabilities(session: &Session, images: &[f32]) -> Vec<f32> {
    let x = Tensor::from_slice(&[images.len() / 64, 1, 8, 8], images).unwrap();
    let out = session.run(&[("image", x)]).unwrap();
    let Value::Tensor(y) = &out[0] else { panic!("no tensor came out") };
    y.as_slice::<f32>().unwrap().to_vec()
}

#[test]
fn digits_are_recognised() {
    let session = Session::from_file("models/digits.onnx").unwrap();
    let (images, labels) = held_out();
    let all = probabilities(&session, &images);
    let best = |p: &[f32]| (0..10).max_by(|&a, &b| p[a].total_cmp(&p[b])).unwrap();
    let right = all.chunks(10).zip(&labels).filter(|(p, l)| best(p) == usize::from(**l)).count();
    // models/README.md: 353 of 355.
    assert_eq!((right, labels.len()), (353, 355));
    for (i, p) in all.chunks(10).enumerate() {
        let sum: f32 = p.iter().sum();
        assert!((sum - 1.0).abs() < 1e-5, "probabilities add up to {sum}");
        if i % 50 == 0 {
            // One by one they are what they are in a batch, but for the rounding of sums in another order.
            let alone = probabilities(&session, &images[i * 64..][..64]);
            assert!(alone.iter().zip(p).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }
}
