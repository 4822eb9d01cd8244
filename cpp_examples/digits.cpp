/*
 * Classifies handwritten digits in C++17: one picture at a time through a binding, which allocates nothing once it runs,
 * then all at once on two threads of the program's own. Shows what an error looks like too.
 *
 * run: models/digits.onnx models/digits_test.bin
 */
#include <ortx.hpp>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <thread>

namespace {

/** See scripts/train_digits.py for the file's layout. */
struct digits {
  size_t height, width;
  std::vector<unsigned> labels;
  std::vector<float> pixels;
  size_t size() const { return height * width; }
};

digits read_digits(const char *path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<unsigned char> bytes{std::istreambuf_iterator<char>(file), {}};
  auto number = [&](size_t at) {
    return static_cast<size_t>(bytes.at(at) | bytes.at(at + 1) << 8 | bytes.at(at + 2) << 16) |
           static_cast<size_t>(bytes.at(at + 3)) << 24;
  };
  if (bytes.size() < 24 || !std::equal(bytes.begin(), bytes.begin() + 8, "DIGITS01"))
    throw std::runtime_error(std::string(path) + " is not a digits file");
  digits d{number(12), number(16), {}, {}};
  size_t at = 24, levels = number(20);
  for (size_t i = 0; i < number(8); i++) {
    d.labels.push_back(bytes.at(at++));
    for (size_t k = 0; k < d.size(); k++) d.pixels.push_back(static_cast<float>(bytes.at(at++)) / static_cast<float>(levels));
  }
  return d;
}

/** How many of the pictures from `first` to `last` are told right, all in one batch. */
size_t classify(const ortx::session &model, const digits &d, size_t first, size_t last) {
  auto shape = ortx::shape{static_cast<int64_t>(last - first), 1, static_cast<int64_t>(d.height),
                           static_cast<int64_t>(d.width)};
  auto images = ortx::value::borrow(shape, d.pixels.data() + first * d.size(), (last - first) * d.size());
  auto outputs = model.run({&images});
  auto answers = outputs.at(model.output_index("probabilities")).data<float>();
  size_t right = 0;
  for (size_t i = first; i < last; i++) {
    auto row = answers.begin() + (i - first) * 10;
    right += static_cast<unsigned>(std::max_element(row, row + 10) - row) == d.labels[i];
  }
  return right;
}

int run(const char *model_path, const char *digits_path) {
  ortx::session model(model_path, ortx::session_options().threads(1));
  std::cout << "ortx " << ortx_version() << " runs '" << model.text(ORTX_TEXT_GRAPH_NAME) << "' with "
            << ortx_isa_name(model.isa()) << "\n";
  digits d = read_digits(digits_path);
  const size_t count = d.labels.size();

  // One by one: the tensors are made once.
  auto image = ortx::value::zeros<float>({1, 1, static_cast<int64_t>(d.height), static_cast<int64_t>(d.width)});
  auto answer = ortx::value::zeros<float>({1, 10});
  ortx::binding binding(model);
  binding.set_input(0, image);
  binding.set_output(0, answer);
  size_t singly = 0;
  for (size_t i = 0; i < count; i++) {
    std::copy_n(d.pixels.data() + i * d.size(), d.size(), image.data_mut<float>().begin());
    binding.run();
    auto p = answer.data<float>();
    singly += static_cast<unsigned>(std::max_element(p.begin(), p.end()) - p.begin()) == d.labels[i];
  }

  // The same session in two threads at once.
  size_t halves[2] = {};
  std::thread other([&] { halves[1] = classify(model, d, count / 2, count); });
  halves[0] = classify(model, d, 0, count / 2);
  other.join();
  std::cout << singly << " of " << count << " right one by one, " << halves[0] + halves[1] << " in two batches\n";

  // Errors are exceptions that say what and where.
  try {
    auto wrong = ortx::value::zeros<float>({1, 3, 8, 8});
    model.run({&wrong});
    throw std::logic_error("a wrong shape was taken");
  } catch (const ortx::error &e) {
    std::cout << "as it should be: " << ortx_code_name(e.code()) << ": " << e.what() << "\n";
  }
  bool good = singly == halves[0] + halves[1] && static_cast<double>(singly) >= 0.98 * static_cast<double>(count);
  return good ? 0 : 1;
}

} // namespace

int main(int argc, char **argv) {
  if (argc != 3) {
    std::cerr << "usage: " << argv[0] << " MODEL.onnx DIGITS.bin\n";
    return 2;
  }
  try {
    return run(argv[1], argv[2]);
  } catch (const std::exception &e) {
    std::cerr << "error: " << e.what() << "\n";
    return 1;
  }
}
