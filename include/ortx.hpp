/**
 * @file ortx.hpp
 * ortx for C++17: RAII over ortx.h, header-only. Handles are move-only objects, statuses are exceptions (ortx::error), data
 * are views. The conventions of ortx.h hold: see there for what each call does, and for threads.
 *
 *     ortx::session model("model.onnx");
 *     auto x = ortx::value::copy<float>({1, 3}, {1, 2, 3});
 *     auto y = model.run({&x});
 *     for (float f : y[0].data<float>()) std::cout << f << '\n';
 */
#ifndef ORTX_HPP
#define ORTX_HPP

#include "ortx.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace ortx {

/** A call that failed. what() has the whole chain of places in one line. */
class error : public std::runtime_error {
public:
  /** Takes the status over. */
  explicit error(ortx_status *status)
      : std::runtime_error(ortx_status_text(status)), code_(ortx_status_code(status)),
        message_(ortx_status_message(status)) {
    for (size_t i = 0; i < ortx_status_context_count(status); i++) contexts_.push_back(ortx_status_context(status, i));
    ortx_status_destroy(status);
  }
  error(ortx_code code, const std::string &message) : std::runtime_error(message), code_(code), message_(message) {}

  /** An ORTX_ERROR_ number. */
  ortx_code code() const noexcept { return code_; }
  /** The message without the places. */
  const std::string &message() const noexcept { return message_; }
  /** The places, outermost first. */
  const std::vector<std::string> &contexts() const noexcept { return contexts_; }

private:
  ortx_code code_;
  std::string message_;
  std::vector<std::string> contexts_;
};

/** The library's version, as "0.1.0". */
inline std::string_view version() noexcept { return ortx_version(); }
/** Whether the library that was loaded has the ABI that this header is for; otherwise use nothing else of it. */
inline bool abi_matches() noexcept { return ortx_abi_version() == ORTX_ABI_VERSION; }
/** Threads that a session uses unless told otherwise. */
inline int32_t threads_available() noexcept { return ortx_threads_available(); }
/** The level of instructions that a session uses unless told otherwise. */
inline ortx_isa isa_available() noexcept { return ortx_isa_available(); }
inline std::string_view isa_name(ortx_isa level) noexcept { return ortx_isa_name(level); }
inline std::string_view dtype_name(ortx_dtype dtype) noexcept { return ortx_dtype_name(dtype); }
/** Bits that an element takes in a tensor's memory; 0 for strings. */
inline int32_t dtype_bits(ortx_dtype dtype) noexcept { return ortx_dtype_bits(dtype); }
inline std::string_view code_name(ortx_code code) noexcept { return ortx_code_name(code); }

/** Throws unless the status is success. */
inline void check(ortx_status *status) {
  if (status) throw error(status);
}

/** Elements that somebody else owns. */
template <class T> class view {
public:
  view() noexcept = default;
  view(T *data, size_t size) noexcept : data_(data), size_(size) {}
  T *data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  T *begin() const noexcept { return data_; }
  T *end() const noexcept { return data_ + size_; }
  T &operator[](size_t i) const noexcept { return data_[i]; }
  /** Throws where there is no such element. */
  T &at(size_t i) const {
    if (i >= size_) throw std::out_of_range("ortx::view::at");
    return data_[i];
  }

private:
  T *data_ = nullptr;
  size_t size_ = 0;
};

/** Sizes, outermost axis first. */
using shape = std::vector<int64_t>;

/** The element type of a C++ type. */
template <class T> struct dtype_of;
#define ORTX_DTYPE_OF(TYPE, NUMBER)                                                                                    \
  template <> struct dtype_of<TYPE> { static constexpr ortx_dtype value = NUMBER; }
ORTX_DTYPE_OF(float, ORTX_DTYPE_FLOAT32);
ORTX_DTYPE_OF(double, ORTX_DTYPE_FLOAT64);
ORTX_DTYPE_OF(bool, ORTX_DTYPE_BOOL);
ORTX_DTYPE_OF(int8_t, ORTX_DTYPE_INT8);
ORTX_DTYPE_OF(int16_t, ORTX_DTYPE_INT16);
ORTX_DTYPE_OF(int32_t, ORTX_DTYPE_INT32);
ORTX_DTYPE_OF(int64_t, ORTX_DTYPE_INT64);
ORTX_DTYPE_OF(uint8_t, ORTX_DTYPE_UINT8);
ORTX_DTYPE_OF(uint16_t, ORTX_DTYPE_UINT16);
ORTX_DTYPE_OF(uint32_t, ORTX_DTYPE_UINT32);
ORTX_DTYPE_OF(uint64_t, ORTX_DTYPE_UINT64);
#undef ORTX_DTYPE_OF
static_assert(sizeof(bool) == 1, "bools of tensors have one byte");

namespace detail {
template <auto Destroy> struct destroyer {
  template <class T> void operator()(T *handle) const noexcept { Destroy(handle); }
};
template <class T, auto Destroy> using handle = std::unique_ptr<T, destroyer<Destroy>>;

/** Calls `f(T *out)`, returns what it wrote. */
template <class T, class F> T get(F &&f) {
  T out{};
  check(f(&out));
  return out;
}

/** Lets ortx keep a C++ object alive. */
struct keeper {
  std::shared_ptr<const void> object;
  static void release(void *user) { delete static_cast<keeper *>(user); }
};
inline std::pair<ortx_release, void *> lend(const std::shared_ptr<const void> &keep) {
  if (!keep) return {nullptr, nullptr};
  return {keeper::release, new keeper{keep}};
}
} // namespace detail

/** A tensor, sequence, optional or map. */
class value {
public:
  value() noexcept = default;
  /** Takes a handle over. */
  explicit value(ortx_value *handle) noexcept : handle_(handle) {}

  /** A tensor of zeros. */
  static value zeros(ortx_dtype dtype, const ortx::shape &s) {
    return value(detail::get<ortx_value *>([&](auto out) { return ortx_tensor_create(dtype, s.data(), s.size(), out); }));
  }
  template <class T> static value zeros(const ortx::shape &s) { return zeros(dtype_of<T>::value, s); }
  /** A tensor with a copy of elements. */
  template <class T> static value copy(const ortx::shape &s, const T *data, size_t count) {
    return copy(dtype_of<T>::value, s, data, count * sizeof(T));
  }
  template <class T> static value copy(const ortx::shape &s, const std::vector<T> &data) {
    static_assert(!std::is_same_v<T, bool>, "std::vector<bool> has no elements to copy from");
    return copy(s, data.data(), data.size());
  }
  static value copy(ortx_dtype dtype, const ortx::shape &s, const void *data, size_t bytes) {
    return value(detail::get<ortx_value *>(
        [&](auto out) { return ortx_tensor_create_from_copy(dtype, s.data(), s.size(), data, bytes, out); }));
  }
  /** A tensor over memory of the caller, not copied. `keep` owns the memory and lives as long as it is needed; without it
   * the caller sees to that. */
  template <class T>
  static value borrow(const ortx::shape &s, const T *data, size_t count, std::shared_ptr<const void> keep = nullptr) {
    return value(detail::get<ortx_value *>([&](auto out) {
      auto [release, user] = detail::lend(keep);
      return ortx_tensor_create_borrowed(dtype_of<T>::value, s.data(), s.size(), data, count * sizeof(T), release, user, out);
    }));
  }
  /** The same over memory that runs may write to. */
  template <class T>
  static value borrow_mut(const ortx::shape &s, T *data, size_t count, std::shared_ptr<const void> keep = nullptr) {
    return value(detail::get<ortx_value *>([&](auto out) {
      auto [release, user] = detail::lend(keep);
      return ortx_tensor_create_borrowed_mut(dtype_of<T>::value, s.data(), s.size(), data, count * sizeof(T), release, user,
                                             out);
    }));
  }
  /** A tensor of strings. */
  static value strings(const ortx::shape &s, const std::vector<std::string> &data) {
    std::vector<const char *> texts;
    std::vector<size_t> lengths;
    for (const auto &t : data) texts.push_back(t.data()), lengths.push_back(t.size());
    return value(detail::get<ortx_value *>([&](auto out) {
      return ortx_tensor_create_from_strings(s.data(), s.size(), texts.data(), lengths.data(), texts.size(), out);
    }));
  }
  static value sequence(const std::vector<const value *> &elements) {
    std::vector<const ortx_value *> handles;
    for (auto e : elements) handles.push_back(e ? e->get() : nullptr);
    return value(
        detail::get<ortx_value *>([&](auto out) { return ortx_sequence_create(handles.data(), handles.size(), out); }));
  }
  /** An optional; an empty one without an element. */
  static value optional(const value *element = nullptr) {
    return value(
        detail::get<ortx_value *>([&](auto out) { return ortx_optional_create(element ? element->get() : nullptr, out); }));
  }
  static value map(const value &keys, const value &values) {
    return value(detail::get<ortx_value *>([&](auto out) { return ortx_map_create(keys.get(), values.get(), out); }));
  }

  /** Another handle of the same memory. */
  value clone() const {
    return value(detail::get<ortx_value *>([&](auto out) { return ortx_value_clone(get(), out); }));
  }
  ortx_kind kind() const {
    return detail::get<ortx_kind>([&](auto out) { return ortx_value_kind(get(), out); });
  }
  ortx_dtype dtype() const {
    return detail::get<ortx_dtype>([&](auto out) { return ortx_tensor_dtype(get(), out); });
  }
  ortx::shape shape() const {
    size_t rank = detail::get<size_t>([&](auto out) { return ortx_tensor_shape(get(), nullptr, 0, out); });
    ortx::shape s(rank);
    check(ortx_tensor_shape(get(), s.data(), rank, &rank));
    return s;
  }
  /** Elements of a tensor. */
  size_t count() const {
    return detail::get<size_t>([&](auto out) { return ortx_tensor_count(get(), out); });
  }
  size_t byte_size() const {
    return detail::get<size_t>([&](auto out) { return ortx_tensor_byte_size(get(), out); });
  }
  /** The elements, to read; throws if they are of another type. Valid as long as a value has this memory. */
  template <class T> view<const T> data() const {
    expect<T>();
    return {static_cast<const T *>(raw()), count()};
  }
  /** The elements, to write. */
  template <class T> view<T> data_mut() {
    expect<T>();
    return {static_cast<T *>(raw_mut()), count()};
  }
  const void *raw() const {
    return detail::get<const void *>([&](auto out) { return ortx_tensor_data(get(), out); });
  }
  void *raw_mut() {
    return detail::get<void *>([&](auto out) { return ortx_tensor_data_mut(get(), out); });
  }
  /** One string of a tensor of strings. */
  std::string_view string(size_t index) const {
    const char *text = nullptr;
    size_t length = 0;
    check(ortx_tensor_string(get(), index, &text, &length));
    return {text, length};
  }
  /** Elements of a sequence. */
  size_t sequence_count() const {
    return detail::get<size_t>([&](auto out) { return ortx_sequence_count(get(), out); });
  }
  value sequence_get(size_t index) const {
    return value(detail::get<ortx_value *>([&](auto out) { return ortx_sequence_get(get(), index, out); }));
  }
  /** What an optional holds; false as a bool where it is empty. */
  value optional_get() const {
    return value(detail::get<ortx_value *>([&](auto out) { return ortx_optional_get(get(), out); }));
  }
  value map_keys() const {
    return value(detail::get<ortx_value *>([&](auto out) { return ortx_map_keys(get(), out); }));
  }
  value map_values() const {
    return value(detail::get<ortx_value *>([&](auto out) { return ortx_map_values(get(), out); }));
  }

  explicit operator bool() const noexcept { return handle_ != nullptr; }
  ortx_value *get() const noexcept { return handle_.get(); }
  ortx_value *release() noexcept { return handle_.release(); }

private:
  template <class T> void expect() const {
    if (ortx_dtype have = dtype(); have != dtype_of<T>::value)
      throw error(ORTX_ERROR_INVALID_ARGUMENT, std::string("the tensor is ") + ortx_dtype_name(have) + ", not " +
                                                   ortx_dtype_name(dtype_of<T>::value));
  }
  detail::handle<ortx_value, ortx_value_destroy> handle_;
};

/** The type of an input or output: a part of its session. */
class type {
public:
  explicit type(const ortx_type *t) noexcept : type_(t) {}
  ortx_kind kind() const {
    return detail::get<ortx_kind>([&](auto out) { return ortx_type_kind(type_, out); });
  }
  ortx_dtype dtype() const {
    return detail::get<ortx_dtype>([&](auto out) { return ortx_type_dtype(type_, out); });
  }
  /** -1 where it is not known. */
  int64_t rank() const {
    return detail::get<int64_t>([&](auto out) { return ortx_type_rank(type_, out); });
  }
  /** -1 where it depends on the run. */
  int64_t size(size_t axis) const {
    return detail::get<int64_t>([&](auto out) { return ortx_type_dim(type_, axis, out, nullptr); });
  }
  /** The model's name of such a size; "" where there is none. */
  std::string_view symbol(size_t axis) const {
    int64_t size = 0;
    const char *text = nullptr;
    check(ortx_type_dim(type_, axis, &size, &text));
    return text ? text : "";
  }
  /** Of what a sequence, optional or map holds. */
  type element() const {
    return type(detail::get<const ortx_type *>([&](auto out) { return ortx_type_element(type_, out); }));
  }
  explicit operator bool() const noexcept { return type_ != nullptr; }

private:
  const ortx_type *type_;
};

/** A device that sessions can use. */
struct device {
  std::string name, description;
  ortx_device_type type;
  uint64_t memory;
};

/** What sessions share. */
class environment {
public:
  environment()
      : handle_(detail::get<ortx_environment *>([](auto out) { return ortx_environment_create(out); })) {}
  /** The devices beside the processor itself. */
  std::vector<device> devices() const {
    size_t count = detail::get<size_t>([&](auto out) { return ortx_environment_device_count(get(), out); });
    std::vector<device> list;
    for (size_t i = 0; i < count; i++) {
      device d;
      d.name = detail::get<const char *>([&](auto out) { return ortx_environment_device_name(get(), i, out); });
      d.description = detail::get<const char *>([&](auto out) { return ortx_environment_device_description(get(), i, out); });
      d.type = detail::get<ortx_device_type>([&](auto out) { return ortx_environment_device_type(get(), i, out); });
      d.memory = detail::get<uint64_t>([&](auto out) { return ortx_environment_device_memory(get(), i, out); });
      list.push_back(std::move(d));
    }
    return list;
  }
  ortx_environment *get() const noexcept { return handle_.get(); }

private:
  detail::handle<ortx_environment, ortx_environment_destroy> handle_;
};

/** How a session is made; each setter returns the object. */
class session_options {
public:
  session_options &threads(int32_t n) { return raw_.threads = n, *this; }
  session_options &isa(ortx_isa level) { return raw_.isa = level, *this; }
  session_options &spin_ns(int64_t ns) { return raw_.spin_ns = ns, *this; }
  session_options &load(ortx_load how) { return raw_.load = how, *this; }
  session_options &keep_denormals(bool keep) { return raw_.keep_denormals = keep, *this; }
  session_options &optimize(bool on) { return raw_.disable_optimization = !on, *this; }
  session_options &memory_limit(uint64_t bytes) { return raw_.memory_limit = bytes, *this; }
  session_options &plan_bytes(uint64_t bytes) { return raw_.plan_bytes = bytes, *this; }
  /** The next device in order of preference. */
  session_options &device(std::string name, bool required = false) {
    devices_.emplace_back(std::move(name), required);
    return *this;
  }
  session_options &set(std::string key, std::string value) {
    settings_.emplace_back(std::move(key), std::move(value));
    return *this;
  }
  /** The host's thread pool; its release function is called once for each session made with it. */
  session_options &pool(const ortx_thread_pool &p) {
    pool_ = p, has_pool_ = true;
    return *this;
  }

  /** Calls `f` with the C structure. */
  template <class F> auto with(F &&f) const {
    std::vector<ortx_device_choice> devices;
    for (const auto &d : devices_) devices.push_back({d.first.c_str(), d.second, 0});
    std::vector<ortx_setting> settings;
    for (const auto &s : settings_) settings.push_back({s.first.c_str(), s.second.c_str()});
    ortx_session_options o = raw_;
    o.struct_size = sizeof o;
    o.devices = devices.data(), o.device_count = devices.size();
    o.settings = settings.data(), o.setting_count = settings.size();
    o.pool = has_pool_ ? &pool_ : nullptr;
    return f(&o);
  }

private:
  ortx_session_options raw_{};
  std::vector<std::pair<std::string, bool>> devices_;
  std::vector<std::pair<std::string, std::string>> settings_;
  ortx_thread_pool pool_{};
  bool has_pool_ = false;
};

/** Stops runs from another thread. */
class cancel_token {
public:
  cancel_token() : handle_(detail::get<ortx_cancel_token *>([](auto out) { return ortx_cancel_token_create(out); })) {}
  void cancel() const { check(ortx_cancel_token_cancel(get())); }
  void reset() const { check(ortx_cancel_token_reset(get())); }
  bool is_cancelled() const {
    return detail::get<int32_t>([&](auto out) { return ortx_cancel_token_is_cancelled(get(), out); }) != 0;
  }
  ortx_cancel_token *get() const noexcept { return handle_.get(); }

private:
  detail::handle<ortx_cancel_token, ortx_cancel_token_destroy> handle_;
};

/** How one run goes. */
struct run_options {
  const cancel_token *cancel = nullptr;
  /** 0: no limit. */
  uint64_t timeout_ns = 0;

  ortx_run_options raw() const noexcept {
    ortx_run_options o{};
    o.struct_size = sizeof o;
    o.cancel_token = cancel ? cancel->get() : nullptr;
    o.timeout_ns = timeout_ns;
    return o;
  }
};

/** Writes an optimised model to `file`: compiled for this library and processor if its name ends in .ortx, else as ONNX. */
inline void optimize(const std::string &path, const std::string &file, const session_options &options = {},
                     const environment *env = nullptr) {
  options.with([&](const ortx_session_options *o) {
    check(ortx_model_optimize(env ? env->get() : nullptr, path.c_str(), o, file.c_str()));
  });
}

/** A model, ready to run, by any number of threads at once. */
class session {
public:
  explicit session(const std::string &path, const session_options &options = {}, const environment *env = nullptr)
      : handle_(options.with([&](const ortx_session_options *o) {
          return detail::get<ortx_session *>(
              [&](auto out) { return ortx_session_create_from_file(env ? env->get() : nullptr, path.c_str(), o, out); });
        })) {}
  /** A model in memory, which is copied. `folder` has the files that it keeps tensors in, if any. */
  static session from_memory(const void *data, size_t size, const session_options &options = {},
                             const environment *env = nullptr, const char *folder = nullptr) {
    return options.with([&](const ortx_session_options *o) {
      return session(detail::get<ortx_session *>([&](auto out) {
        return ortx_session_create_from_memory(env ? env->get() : nullptr, data, size, folder, o, out);
      }));
    });
  }
  /** A model in memory, used where it is. `keep` owns the memory and lives as long as it is needed; without it the caller
   * sees to that. */
  static session from_borrowed_memory(const void *data, size_t size, std::shared_ptr<const void> keep = nullptr,
                                      const session_options &options = {}, const environment *env = nullptr,
                                      const char *folder = nullptr) {
    return options.with([&](const ortx_session_options *o) {
      return session(detail::get<ortx_session *>([&](auto out) {
        auto [release, user] = detail::lend(keep);
        return ortx_session_create_from_borrowed_memory(env ? env->get() : nullptr, data, size, release, user, folder, o,
                                                        out);
      }));
    });
  }

  size_t input_count() const {
    return detail::get<size_t>([&](auto out) { return ortx_session_input_count(get(), out); });
  }
  size_t output_count() const {
    return detail::get<size_t>([&](auto out) { return ortx_session_output_count(get(), out); });
  }
  /** Inputs that have a default; their indices follow those of the others. */
  size_t overridable_count() const {
    return detail::get<size_t>([&](auto out) { return ortx_session_overridable_count(get(), out); });
  }
  std::string_view input_name(size_t i) const {
    return detail::get<const char *>([&](auto out) { return ortx_session_input_name(get(), i, out); });
  }
  std::string_view output_name(size_t i) const {
    return detail::get<const char *>([&](auto out) { return ortx_session_output_name(get(), i, out); });
  }
  size_t input_index(const std::string &name) const {
    return detail::get<size_t>([&](auto out) { return ortx_session_input_index(get(), name.c_str(), out); });
  }
  size_t output_index(const std::string &name) const {
    return detail::get<size_t>([&](auto out) { return ortx_session_output_index(get(), name.c_str(), out); });
  }
  type input_type(size_t i) const {
    return type(detail::get<const ortx_type *>([&](auto out) { return ortx_session_input_type(get(), i, out); }));
  }
  type output_type(size_t i) const {
    return type(detail::get<const ortx_type *>([&](auto out) { return ortx_session_output_type(get(), i, out); }));
  }
  /** One of the model's texts: an ORTX_TEXT_ number. */
  std::string_view text(ortx_text which) const {
    return detail::get<const char *>([&](auto out) { return ortx_session_text(get(), which, out); });
  }
  /** The model's key/value pairs. */
  std::vector<std::pair<std::string, std::string>> properties() const {
    size_t count = detail::get<size_t>([&](auto out) { return ortx_session_property_count(get(), out); });
    std::vector<std::pair<std::string, std::string>> list;
    for (size_t i = 0; i < count; i++) {
      const char *key = nullptr, *value = nullptr;
      check(ortx_session_property(get(), i, &key, &value));
      list.emplace_back(key, value);
    }
    return list;
  }
  /** What the caller should hear of: preferred devices that cannot be used, so that the processor takes their place. */
  std::vector<std::string> warnings() const {
    size_t count = detail::get<size_t>([&](auto out) { return ortx_session_warning_count(get(), out); });
    std::vector<std::string> list;
    for (size_t i = 0; i < count; i++)
      list.emplace_back(detail::get<const char *>([&](auto out) { return ortx_session_warning(get(), i, out); }));
    return list;
  }
  /** The version that the model's author gave it. */
  int64_t model_version() const {
    return detail::get<int64_t>([&](auto out) { return ortx_session_model_version(get(), out); });
  }
  /** The version of the file format. */
  int64_t ir_version() const {
    return detail::get<int64_t>([&](auto out) { return ortx_session_ir_version(get(), out); });
  }
  /** The operator sets that the model imports: domains ("" for ONNX's own) and versions. */
  std::vector<std::pair<std::string, int64_t>> opsets() const {
    size_t count = detail::get<size_t>([&](auto out) { return ortx_session_opset_count(get(), out); });
    std::vector<std::pair<std::string, int64_t>> list;
    for (size_t i = 0; i < count; i++) {
      const char *domain = nullptr;
      int64_t version = 0;
      check(ortx_session_opset(get(), i, &domain, &version));
      list.emplace_back(domain, version);
    }
    return list;
  }
  int32_t threads() const {
    return detail::get<int32_t>([&](auto out) { return ortx_session_threads(get(), out); });
  }
  ortx_isa isa() const {
    return detail::get<ortx_isa>([&](auto out) { return ortx_session_isa(get(), out); });
  }
  /** Bytes in use, which memory_limit bounds. */
  uint64_t memory() const {
    return detail::get<uint64_t>([&](auto out) { return ortx_session_memory(get(), out, nullptr); });
  }
  /** Frees what no run uses now. */
  void trim() const { check(ortx_session_trim(get())); }

  /** Runs the model on all its inputs, in its order; gives all its outputs. */
  std::vector<value> run(const std::vector<const value *> &inputs, const run_options &options = {}) const {
    std::vector<const ortx_value *> in;
    for (auto v : inputs) in.push_back(v ? v->get() : nullptr);
    std::vector<ortx_value *> out(output_count());
    std::vector<value> results;
    results.reserve(out.size());
    ortx_run_options o = options.raw();
    check(ortx_session_run(get(), &o, nullptr, in.data(), in.size(), nullptr, out.data(), out.size()));
    for (auto v : out) results.emplace_back(v);
    return results;
  }
  /** The same into tensors that the caller has; an empty value receives a new one. */
  void run(const std::vector<const value *> &inputs, const std::vector<value *> &outputs,
           const run_options &options = {}) const {
    std::vector<const ortx_value *> in;
    for (auto v : inputs) in.push_back(v ? v->get() : nullptr);
    std::vector<ortx_value *> out;
    for (auto v : outputs) out.push_back(v->get());
    ortx_run_options o = options.raw();
    check(ortx_session_run(get(), &o, nullptr, in.data(), in.size(), nullptr, out.data(), out.size()));
    for (size_t i = 0; i < out.size(); i++)
      if (!*outputs[i]) *outputs[i] = value(out[i]);
  }

  /** Runs the model on inputs by name, for these outputs only; all for none. */
  std::vector<value> run(const std::vector<std::pair<std::string, const value *>> &inputs,
                         const std::vector<std::string> &outputs, const run_options &options = {}) const {
    std::vector<size_t> in_places, out_places;
    std::vector<const ortx_value *> in;
    for (const auto &[name, v] : inputs) in_places.push_back(input_index(name)), in.push_back(v ? v->get() : nullptr);
    for (const auto &name : outputs) out_places.push_back(output_index(name));
    std::vector<ortx_value *> out(outputs.empty() ? output_count() : outputs.size());
    std::vector<value> results;
    results.reserve(out.size());
    ortx_run_options o = options.raw();
    check(ortx_session_run(get(), &o, in_places.data(), in.data(), in.size(), outputs.empty() ? nullptr : out_places.data(),
                           out.data(), out.size()));
    for (auto v : out) results.emplace_back(v);
    return results;
  }

  ortx_session *get() const noexcept { return handle_.get(); }

private:
  explicit session(ortx_session *handle) noexcept : handle_(handle) {}
  detail::handle<ortx_session, ortx_session_destroy> handle_;
};

/** Inputs and outputs set once, for repeated runs that allocate nothing. For one thread at a time. */
class binding {
public:
  explicit binding(const session &s)
      : handle_(detail::get<ortx_binding *>([&](auto out) { return ortx_binding_create(s.get(), out); })) {}
  void set_input(size_t index, const value &v) { check(ortx_binding_set_input(get(), index, v.get())); }
  /** Runs write to this tensor. */
  void set_output(size_t index, value &v) { check(ortx_binding_set_output(get(), index, v.get())); }
  /** Runs write to memory of the binding's own. */
  void reset_output(size_t index) { check(ortx_binding_set_output(get(), index, nullptr)); }
  void run() { check(ortx_binding_run(get(), nullptr)); }
  void run(const run_options &options) {
    ortx_run_options o = options.raw();
    check(ortx_binding_run(get(), &o));
  }
  /** An output of the last run. */
  value output(size_t index) const {
    return value(detail::get<ortx_value *>([&](auto out) { return ortx_binding_output(get(), index, out); }));
  }
  ortx_binding *get() const noexcept { return handle_.get(); }

private:
  detail::handle<ortx_binding, ortx_binding_destroy> handle_;
};

} // namespace ortx

#endif // ORTX_HPP
