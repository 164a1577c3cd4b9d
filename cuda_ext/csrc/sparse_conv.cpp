#include "sparse_conv.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "parallel.h"
#include "simd_kernels.h"

namespace equilidar {
namespace {

// A tile of output rows of this many elements stays in the first two caches while all offsets add to it.
constexpr int64_t kTileElements = 8192;
// Pairs whose rows are laid side by side for the weight's gradient: both sides together fit the first cache.
constexpr int64_t kOuterPairs = 32;

// The matrices (offset, in, out), rows padded with zeros.
template <typename T>
std::unique_ptr<T[]> pack(const WeightView<T>& weight, int64_t num_offsets, int64_t width) {
  const int64_t depth = weight.in_channels;
  std::unique_ptr<T[]> packed(new T[num_offsets * depth * width]);
  parallel_for(num_offsets, 1, [&](int64_t k) {
    for (int64_t i = 0; i < depth; ++i) {
      T* const row = packed.get() + (k * depth + i) * width;
      for (int64_t o = 0; o < weight.out_channels; ++o) row[o] = weight(o, k, i);
      std::fill(row + weight.out_channels, row + width, T(0));
    }
  });
  return packed;
}

// Pairs in the order that tiles need. Rulebooks of sorted coords come so whichever side is the target; others are sorted
// here.
struct SortedPairs {
  RowPairs pairs;
  std::vector<int32_t> sources, targets;

  explicit SortedPairs(const RowPairs& given) : pairs(given) {
    std::vector<char> sorted(given.num_offsets);
    parallel_for(given.num_offsets, 1, [&](int64_t k) {
      sorted[k] = std::is_sorted(given.targets + given.starts[k], given.targets + given.starts[k + 1]);
    });
    if (std::all_of(sorted.begin(), sorted.end(), [](char value) { return value; })) return;
    sources.resize(given.size());
    targets.resize(given.size());
    parallel_for(given.num_offsets, 1, [&](int64_t k) {
      const int64_t begin = given.starts[k], count = given.starts[k + 1] - begin;
      std::vector<int64_t> both(count);
      for (int64_t p = 0; p < count; ++p) {
        both[p] = (static_cast<int64_t>(given.targets[begin + p]) << 32) | given.sources[begin + p];
      }
      std::sort(both.begin(), both.end());
      for (int64_t p = 0; p < count; ++p) {
        targets[begin + p] = static_cast<int32_t>(both[p] >> 32);
        sources[begin + p] = static_cast<int32_t>(both[p]);
      }
    });
    pairs.sources = sources.data();
    pairs.targets = targets.data();
  }
};

}  // namespace

template <typename T>
void convolve_cpu(const T* features, WeightView<T> weight, RowPairs given, int64_t num_targets, T* out) {
  const SortedPairs sorted(given);
  const RowPairs& pairs = sorted.pairs;
  const int64_t depth = weight.in_channels, channels = weight.out_channels, width = padded(channels);
  const std::unique_ptr<T[]> packed = pack(weight, pairs.num_offsets, width);
  const ConvKernels<T>& kernels = conv_kernels<T>();
  parallel_chunks(num_targets, max_of<int64_t>(32, kTileElements / width), [&](int64_t begin, int64_t end) {
    // Without padding the tile is the output itself.
    std::unique_ptr<T[]> buffer(width == channels ? nullptr : new T[(end - begin) * width]);
    T* const tile = buffer ? buffer.get() : out + begin * width;
    if (pairs.center >= 0) {
      const T* const matrix = packed.get() + pairs.center * depth * width;
      kernels.multiply_rows(features, depth, matrix, width, nullptr, nullptr, end - begin, begin, tile);
    } else {
      std::fill(tile, tile + (end - begin) * width, T(0));
    }
    for (int64_t k = 0; k < pairs.num_offsets; ++k) {
      const int32_t* const last = pairs.targets + pairs.starts[k + 1];
      const int32_t* const low = std::lower_bound(pairs.targets + pairs.starts[k], last, begin);
      const int32_t* const high = std::lower_bound(low, low + min_of<int64_t>(last - low, end - begin), end);
      if (low == high) continue;
      kernels.multiply_rows(features, depth, packed.get() + k * depth * width, width,
                            pairs.sources + (low - pairs.targets), low, high - low, begin, tile);
    }
    if (!buffer) return;
    for (int64_t row = begin; row < end; ++row) {
      std::copy_n(tile + (row - begin) * width, channels, out + row * channels);
    }
  });
}

template <typename T>
void weight_grad_cpu(const T* features, const T* grad, RowPairs pairs, int64_t num_targets, int64_t in_channels,
                     int64_t out_channels, T* out) {
  const int64_t width = padded(in_channels), num_offsets = pairs.num_offsets;
  // One task owns one offset's matrix, or some of its rows, and adds its pairs in their order: nothing to reduce, and the
  // same bits however many threads there are.
  const int64_t panel = num_offsets >= 8 ? 64 : 16, panels = (out_channels + panel - 1) / panel;
  const ConvKernels<T>& kernels = conv_kernels<T>();
  parallel_for(num_offsets * panels, 1, [&](int64_t task) {
    // The center comes first: it has the most pairs.
    const int64_t turn = task / panels, first = task % panels * panel, height = min_of(panel, out_channels - first);
    const int64_t k = pairs.center < 0 || turn > pairs.center ? turn : turn == 0 ? pairs.center : turn - 1;
    const bool is_center = k == pairs.center;
    const int64_t begin = is_center ? 0 : pairs.starts[k], end = is_center ? num_targets : pairs.starts[k + 1];
    std::vector<T> left(kOuterPairs * height), right(kOuterPairs * width), sums(height * width);
    for (int64_t start = begin; start < end; start += kOuterPairs) {
      const int64_t count = min_of(kOuterPairs, end - start);
      for (int64_t p = 0; p < count; ++p) {
        const int64_t source = is_center ? start + p : pairs.sources[start + p];
        const int64_t target = is_center ? start + p : pairs.targets[start + p];
        std::copy_n(grad + target * out_channels + first, height, left.data() + p * height);
        std::copy_n(features + source * in_channels, in_channels, right.data() + p * width);
      }
      kernels.add_outer_products(left.data(), height, right.data(), width, count, sums.data());
    }
    for (int64_t o = 0; o < height; ++o) {
      std::copy_n(sums.data() + o * width, in_channels, out + ((first + o) * num_offsets + k) * in_channels);
    }
  });
}

#define EQL_INSTANTIATE(T)                                                                  \
  template void convolve_cpu(const T*, WeightView<T>, RowPairs, int64_t, T*);               \
  template void weight_grad_cpu(const T*, const T*, RowPairs, int64_t, int64_t, int64_t, T*);
EQL_INSTANTIATE(float)
EQL_INSTANTIATE(double)

}  // namespace equilidar
