/*
 * Values and metadata from C++17: sequences, optionals, maps, borrowed memory, names, cancelling. Checks itself.
 *
 * run: models/digits.onnx
 */
#include <ortx.hpp>

#include <fstream>
#include <iostream>
#include <iterator>

namespace {

void expect(bool good, const char *what) {
  if (!good) throw std::logic_error(what);
}

template <class F> void fails(ortx_code code, F &&f) {
  try {
    f();
  } catch (const ortx::error &e) {
    expect(e.code() == code, e.what());
    return;
  }
  throw std::logic_error("no error");
}

void values() {
  auto one = ortx::value::copy<float>({1}, {1});
  auto two = ortx::value::copy<float>({2}, {2, 3});
  auto sequence = ortx::value::sequence({&one, &two});
  expect(sequence.kind() == ORTX_KIND_SEQUENCE && sequence.sequence_count() == 2, "a sequence");
  expect(sequence.sequence_get(1).data<float>()[1] == 3, "an element");
  fails(ORTX_ERROR_INVALID_ARGUMENT, [&] { sequence.sequence_get(2); });
  auto whole = ortx::value::copy<int64_t>({1}, {7});
  fails(ORTX_ERROR_INVALID_ARGUMENT, [&] { ortx::value::sequence({&one, &whole}); });
  expect(ortx::value::optional(&whole).optional_get().data<int64_t>()[0] == 7, "a full optional");
  expect(!ortx::value::optional().optional_get(), "an empty optional");
  auto keys = ortx::value::strings({2}, {"cat", std::string("d\0g", 3)});
  auto map = ortx::value::map(keys, two);
  expect(map.map_keys().string(1) == std::string_view("d\0g", 3) && map.map_values().count() == 2, "a map");
  fails(ORTX_ERROR_INVALID_ARGUMENT, [&] { ortx::value::map(two, two); });

  // The vector lives as long as the tensor.
  auto memory = std::make_shared<std::vector<double>>(4, 0.5);
  auto lent = ortx::value::borrow({2, 2}, memory->data(), memory->size(), memory);
  expect(memory.use_count() == 2 && lent.clone().data<double>().at(3) == 0.5, "borrowed memory");
  fails(ORTX_ERROR_INVALID_ARGUMENT, [&] { lent.data_mut<double>(); });
  fails(ORTX_ERROR_INVALID_ARGUMENT, [&] { lent.data<float>(); });
  lent = ortx::value();
  expect(memory.use_count() == 1, "memory given back");
  const uint16_t halves[] = {0x3c00, 0xc000};
  auto half = ortx::value::copy(ORTX_DTYPE_FLOAT16, {2}, halves, sizeof halves);
  expect(half.byte_size() == 4 && ortx::dtype_name(half.dtype()) == "float16" && ortx::dtype_bits(half.dtype()) == 16, "halves");
}

void sessions(const char *path) {
  std::ifstream file(path, std::ios::binary);
  auto bytes = std::make_shared<std::string>(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  ortx::environment env;
  auto options = ortx::session_options().threads(2).isa(ORTX_ISA_SCALAR).device("opencl:99").set("load", "read");
  auto model = ortx::session::from_borrowed_memory(bytes->data(), bytes->size(), bytes, options, &env);
  expect(model.warnings().size() == 1 && model.warnings()[0].find("opencl:99") != std::string::npos, "warnings");
  expect(model.threads() == 2 && ortx::isa_name(model.isa()) == "scalar", "options");
  expect(model.ir_version() > 0 && model.model_version() >= 0 && !model.opsets().empty(), "versions");
  auto type = model.input_type(model.input_index("image"));
  expect(type.kind() == ORTX_KIND_TENSOR && type.rank() == 4 && type.size(3) == 8 && !type.symbol(0).empty() && !type.element(),
         "a type");
  auto image = ortx::value::zeros<float>({1, 1, 8, 8});
  auto answer = model.run({{"image", &image}}, {"probabilities"});
  auto all = model.run({&image});
  expect(answer.at(0).data<float>()[0] == all.at(0).data<float>()[0], "by name and by place");
  ortx::cancel_token cancel;
  ortx::run_options run;
  run.cancel = &cancel;
  cancel.cancel();
  expect(cancel.is_cancelled(), "cancelled");
  fails(ORTX_ERROR_CANCELLED, [&] { model.run({&image}, run); });
  cancel.reset();
  model.run({&image}, run);
  fails(ORTX_ERROR_NOT_FOUND, [&] { ortx::session(path, ortx::session_options().device("opencl:99", true)); });
  for (const auto &d : env.devices()) std::cout << d.name << ": " << d.description << "\n";
}

} // namespace

int main(int argc, char **argv) {
  if (argc != 2) {
    std::cerr << "usage: " << argv[0] << " MODEL.onnx\n";
    return 2;
  }
  try {
    if (!ortx::abi_matches()) throw std::runtime_error("another ABI");
    values();
    sessions(argv[1]);
    std::cout << "ortx " << ortx::version() << ": values and sessions from C++\n";
    return 0;
  } catch (const std::exception &e) {
    std::cerr << "error: " << e.what() << "\n";
    return 1;
  }
}
