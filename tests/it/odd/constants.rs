//! Constants of every form, external data, sizes of zero.

use super::*;

/// No initialiser at all: weights as Constant nodes, in each of the forms that a Constant has.
#[test]
fn weights_may_all_be_constants() {
    let constant = |out: &str, a: AttributeProto| node("Constant", &[], &[out]).with(a);
    let sparse = SparseTensorProto {
        values: Some(floats("", &[2], &[5.0, 7.0])),
        indices: Some(ints("", &[2], &[1, 2])),
        dims: vec![2, 2],
    };
    let nodes = vec![
        constant("w", of_tensor("value", floats("", &[2, 2], &[1.0, 2.0, 3.0, 4.0]))),
        constant("k", float("value_float", 0.5)),
        constant("bias", AttributeProto { floats: vec![10.0, 20.0], ..attr("value_floats", AttributeType::Floats) }),
        constant("axis", int("value_int", 1)),
        constant("shape", AttributeProto { ints: vec![1, 2, 1], ..attr("value_ints", AttributeType::Ints) }),
        constant(
            "s",
            AttributeProto {
                sparse_tensor: Some(Box::new(sparse)),
                ..attr("sparse_value", AttributeType::SparseTensor)
            },
        ),
        constant("text", AttributeProto { s: Some("é".into()), ..attr("value_string", AttributeType::String) }),
        constant(
            "texts",
            AttributeProto { strings: vec!["a".into(), "".into()], ..attr("value_strings", AttributeType::Strings) },
        ),
        node("MatMul", &["x", "w"], &["a"]),
        node("Mul", &["a", "k"], &["b"]),
        node("Add", &["b", "bias"], &["c"]),
        node("MatMul", &["c", "s"], &["d"]),
        node("CumSum", &["d", "axis"], &["e"]),
        node("Reshape", &["e", "shape"], &["y"]),
    ];
    let got = run(
        &model(graph(vec![info("x", 1, &[1, 2])], nodes, &["y", "text", "texts"]), vec![]),
        &[("x", x(&[1, 2], &[2.0, 4.0]))],
    );
    // [2 4] w = [14 20]; halved and biased [17 30]; times [[0 5] [7 0]] = [210 85]; summed [210 295].
    assert_eq!((got[0].as_tensor().unwrap().shape(), f32s(&got[0])), (&[1, 2, 1][..], &[210.0, 295.0][..]));
    assert_eq!(got[1].as_tensor().unwrap().as_strings().unwrap(), ["é"]);
    assert_eq!(got[2].as_tensor().unwrap().as_strings().unwrap(), ["a", ""]);
}

/// Sparse initialisers with flat indices and with coordinates, of any type, also without a single value.
#[test]
fn sparse_initialisers() {
    let sparse = |values: TensorProto, indices: TensorProto, dims: &[i64]| SparseTensorProto {
        values: Some(values),
        indices: Some(indices),
        dims: dims.into(),
    };
    let nodes = vec![
        node("MatMul", &["x", "w"], &["y"]),
        node("Identity", &["places"], &["z"]),
        node("Add", &["x", "none"], &["same"]),
    ];
    let mut g = graph(vec![info("x", 1, &[1, 3])], nodes, &["y", "z", "same"]);
    g.sparse_initializer = vec![
        sparse(floats("w", &[2], &[2.0, -1.0]), ints("", &[2, 2], &[0, 1, 2, 0]), &[3, 2]),
        sparse(ints("places", &[2], &[7, 8]), ints("", &[2], &[1, 5]), &[2, 3]),
        sparse(floats("none", &[0], &[]), ints("", &[0], &[]), &[3]),
    ];
    let m = model(g, vec![]);
    let got = run(&m, &[("x", x(&[1, 3], &[1.0, 2.0, 3.0]))]);
    assert_eq!(f32s(&got[0]), [-3.0, 2.0]);
    assert_eq!(i64s(&got[1]), [0, 7, 0, 0, 0, 8]);
    assert_eq!(f32s(&got[2]), [1.0, 2.0, 3.0]);
    // Places outside, unsorted or doubled are errors that name the tensor.
    for (indices, dims) in [(vec![0i64, 6], 2i64), (vec![-1, 2], 2), (vec![0, 1, 0, 5], 4)] {
        let mut m = m.clone();
        let g = m.graph.as_mut().unwrap();
        let shape: &[i64] = if dims == 2 { &[2] } else { &[2, 2] };
        g.sparse_initializer[0].indices = Some(ints("", shape, &indices));
        let e = open(&m, true).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::InvalidModel, "{e}");
        assert!(format!("{e:#}").contains("'w'"), "{e:#}");
    }
}

/// Tensors in files beside the model: slices of one file, in subgraphs and functions too; and files that are not there.
#[test]
fn external_data() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("external");
    std::fs::create_dir_all(folder.join("weights, part 1")).unwrap();
    let bytes: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|f| f.to_le_bytes()).collect();
    std::fs::write(folder.join("weights, part 1/ä:{}.bin"), &bytes).unwrap();
    let outside = |name: &str, dims: &[i64], entries: &[(&str, &str)]| TensorProto {
        name: s(name),
        dims: dims.into(),
        data_type: Some(1),
        data_location: Some(DataLocation::External as i32),
        external_data: entries.iter().map(|(k, v)| StringStringEntryProto { key: s(*k), value: s(*v) }).collect(),
        ..Default::default()
    };
    let file = ("location", "weights, part 1/ä:{}.bin");
    let mut branch = graph(vec![], vec![node("Mul", &["a", "c"], &["p"])], &["p"]);
    branch.initializer = vec![outside("c", &[1], &[file, ("offset", "12"), ("length", "4")])];
    let constant = of_tensor("value", outside("", &[2], &[file, ("offset", "8")]));
    let f = function(
        "Shift",
        &["v"],
        &["w"],
        vec![node("Constant", &[], &["k"]).with(constant), node("Add", &["v", "k"], &["w"])],
    );
    let nodes = vec![
        node("Add", &["x", "w"], &["a0"]),
        own("Shift", &["a0"], &["a"]),
        node("If", &["yes"], &["y"])
            .with(of_graph("then_branch", branch.clone()))
            .with(of_graph("else_branch", branch)),
        node("Concat", &["y", "nothing"], &["z"]).with(int("axis", 0)),
    ];
    let mut g = graph(vec![info("x", 1, &[2]), info("yes", 9, &[])], nodes, &["z"]);
    g.initializer = vec![
        outside("w", &[2], &[file, ("offset", "0"), ("length", "8"), ("checksum", "unused")]),
        outside("nothing", &[0], &[file]),
    ];
    let m = model(g, vec![f]);
    let path = folder.join("m.onnx");
    std::fs::write(&path, m.encode_to_vec()).unwrap();
    let inputs = [("x", x(&[2], &[0.5, 0.5])), ("yes", Tensor::from_slice(&[], &[true]).unwrap())];
    let options = SessionOptions { threads: 1, ..Default::default() };
    // (0.5 + 1 + 3) 4, (0.5 + 2 + 4) 4
    for source in [ModelSource::Path(path), ModelSource::Bytes(m.encode_to_vec().into(), Some(folder.clone()))] {
        let session = Session::new(&Environment::new(), source, &options).unwrap_or_else(|e| panic!("{e:#}"));
        assert_eq!(f32s(&session.run(&inputs).unwrap()[0]), [18.0, 26.0]);
    }
    let e = open(&m, true).err().unwrap();
    assert!(format!("{e:#}").contains("folder"), "{e:#}");
    std::fs::remove_dir_all(folder).unwrap();
}

/// Sizes of zero in inputs, constants and in between.
#[test]
fn sizes_of_zero() {
    let nodes = vec![
        node("MatMul", &["x", "w"], &["product"]),
        node("Relu", &["product"], &["relu"]),
        node("Softmax", &["relu"], &["softmax"]).with(int("axis", 1)),
        node("ReduceSum", &["x", "first"], &["sum"]).with(int("keepdims", 0)),
        node("ReduceMean", &["product", "last"], &["mean"]).with(int("keepdims", 1)),
        node("Concat", &["x", "row", "x"], &["joined"]).with(int("axis", 0)),
        node("Transpose", &["product"], &["turned"]),
        node("Gather", &["row", "none"], &["gathered"]).with(int("axis", 1)),
        node("MatMul", &["turned", "product"], &["inner"]),
        node("Reshape", &["x", "flat"], &["flattened"]),
        node("Shape", &["gathered"], &["shape"]),
        node("ArgMax", &["joined"], &["most"]).with(int("axis", 0)).with(int("keepdims", 0)),
        node("LayerNormalization", &["x", "scale"], &["normed"]),
        node("Conv", &["pictures", "kernel"], &["convolved"]),
        node("Where", &["empty_condition", "x", "x"], &["chosen"]),
        node("Expand", &["scalar", "zero_shape"], &["expanded"]),
    ];
    let outputs = [
        "product",
        "softmax",
        "sum",
        "mean",
        "joined",
        "gathered",
        "inner",
        "flattened",
        "shape",
        "most",
        "normed",
        "convolved",
        "expanded",
        "chosen",
    ];
    let mut g = graph(vec![info("x", 1, &[-1, 3]), info("pictures", 1, &[-1, 1, 4, 4])], nodes, &outputs);
    g.initializer = vec![
        floats("w", &[3, 2], &[1.0; 6]),
        floats("row", &[1, 3], &[1.0, 2.0, 3.0]),
        ints("none", &[0], &[]),
        ints("first", &[1], &[0]),
        ints("last", &[1], &[1]),
        ints("flat", &[2], &[-1, 1]),
        floats("scale", &[3], &[1.0; 3]),
        floats("kernel", &[2, 1, 3, 3], &[1.0; 18]),
        floats("scalar", &[], &[1.0]),
        ints("zero_shape", &[2], &[2, 0]),
        TensorProto { name: s("empty_condition"), dims: vec![0, 1], data_type: Some(9), ..Default::default() },
    ];
    // `Where` on a single row broadcasts against none.
    let got = run(&model(g, vec![]), &[("x", x(&[0, 3], &[])), ("pictures", x(&[0, 1, 4, 4], &[]))]);
    let shapes: Vec<&[usize]> = got.iter().map(|v| v.as_tensor().unwrap().shape()).collect();
    let want: [&[usize]; 14] = [
        &[0, 2],
        &[0, 2],
        &[3],
        &[0, 1],
        &[1, 3],
        &[1, 0],
        &[2, 2],
        &[0, 1],
        &[2],
        &[3],
        &[0, 3],
        &[0, 2, 2, 2],
        &[2, 0],
        &[0, 3],
    ];
    assert_eq!(shapes, want);
    assert_eq!((f32s(&got[2]), f32s(&got[6])), (&[0.0; 3][..], &[0.0; 4][..]));
    assert_eq!((i64s(&got[8]), i64s(&got[9])), (&[1, 0][..], &[0; 3][..]));
}
