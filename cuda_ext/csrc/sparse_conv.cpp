#include "sparse_conv.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "parallel.h"
#include "simd_kernels.h"

namespace equilidar {
namespace {

// A tile of output rows of this many elements stays in the first two caches while all offsets add to it.
constexpr int64_t kTileElements = 8192;
// For the weight's gradient: pairs whose rows fit the first cache, output rows whose pairs fit the second, and rows that
// are worth a part of their own.
constexpr int64_t kOuterPairs = 32, kOuterRows = 512, kPartRows = 3000;

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

// The pairs of offset k whose target is one of [begin, end).
std::pair<int64_t, int64_t> pairs_of_rows(const RowPairs& pairs, int64_t k, int64_t begin, int64_t end) {
  const int32_t* const last = pairs.targets + pairs.starts[k + 1];
  const int32_t* const low = std::lower_bound(pairs.targets + pairs.starts[k], last, begin);
  const int32_t* const high = std::lower_bound(low, low + min_of<int64_t>(last - low, end - begin), end);
  return {low - pairs.targets, high - pairs.targets};
}

// Rows padded with zeros.
template <typename T>
std::unique_ptr<T[]> widen(const T* rows, int64_t num, int64_t channels) {
  const int64_t width = padded(channels);
  std::unique_ptr<T[]> wide(new T[num * width]());
  for (int64_t i = 0; i < num; ++i) std::copy_n(rows + i * channels, channels, wide.get() + i * width);
  return wide;
}

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
      const auto [low, high] = pairs_of_rows(pairs, k, begin, end);
      if (low == high) continue;
      kernels.multiply_rows(features, depth, packed.get() + k * depth * width, width, pairs.sources + low,
                            pairs.targets + low, high - low, begin, tile);
    }
    if (!buffer) return;
    for (int64_t row = begin; row < end; ++row) {
      std::copy_n(tile + (row - begin) * width, channels, out + row * channels);
    }
  });
}

template <typename T>
void weight_grad_cpu(const T* given_features, const T* grad, RowPairs given, int64_t num_sources, int64_t num_targets,
                     int64_t in_channels, int64_t out_channels, T* out) {
  const SortedPairs sorted(given);
  const RowPairs& pairs = sorted.pairs;
  const int64_t width = padded(in_channels), num_offsets = pairs.num_offsets, size = out_channels * width;
  const std::unique_ptr<T[]> wide = width == in_channels ? nullptr : widen(given_features, num_sources, in_channels);
  const T* const features = wide ? wide.get() : given_features;
  const ConvKernels<T>& kernels = conv_kernels<T>();

  // A task sums over a part of the rows for a third of the offsets: its sums and the rows at hand stay in the second
  // cache. Parts depend on the number of rows alone and are added in their order.
  const int64_t num_parts = min_of<int64_t>(16, max_of<int64_t>(1, num_targets / kPartRows));
  const int64_t part_rows = (num_targets + num_parts - 1) / num_parts, group = (num_offsets + 2) / 3;
  const int64_t num_groups = (num_offsets + group - 1) / group;
  std::unique_ptr<T[]> parts(new T[num_parts * num_offsets * size]);
  parallel_for(num_parts * num_groups, 1, [&](int64_t task) {
    const int64_t part = task / num_groups, first = task % num_groups * group;
    const int64_t last = min_of(first + group, num_offsets), stop = min_of((part + 1) * part_rows, num_targets);
    T* const sums = parts.get() + part * num_offsets * size;
    std::fill(sums + first * size, sums + last * size, T(0));
    const T *left[kOuterPairs], *right[kOuterPairs];
    for (int64_t begin = part * part_rows; begin < stop; begin += kOuterRows) {
      const int64_t end = min_of(begin + kOuterRows, stop);
      for (int64_t k = first; k < last; ++k) {
        const bool is_center = k == pairs.center;
        const auto [low, high] = is_center ? std::pair(begin, end) : pairs_of_rows(pairs, k, begin, end);
        for (int64_t start = low; start < high; start += kOuterPairs) {
          const int64_t count = min_of(kOuterPairs, high - start);
          for (int64_t p = 0; p < count; ++p) {
            left[p] = grad + (is_center ? start + p : pairs.targets[start + p]) * out_channels;
            right[p] = features + (is_center ? start + p : pairs.sources[start + p]) * width;
          }
          kernels.add_outer_products(left, out_channels, right, width, count, sums + k * size);
        }
      }
    }
  });
  parallel_for(num_offsets, 1, [&](int64_t k) {
    for (int64_t o = 0; o < out_channels; ++o) {
      T* const row = out + (o * num_offsets + k) * in_channels;
      std::copy_n(parts.get() + k * size + o * width, in_channels, row);
      for (int64_t part = 1; part < num_parts; ++part) {
        const T* const sums = parts.get() + (part * num_offsets + k) * size + o * width;
        for (int64_t i = 0; i < in_channels; ++i) row[i] += sums[i];
      }
    }
  });
}

#define EQL_INSTANTIATE(T)                                                                  \
  template void convolve_cpu(const T*, WeightView<T>, RowPairs, int64_t, T*);               \
  template void weight_grad_cpu(const T*, const T*, RowPairs, int64_t, int64_t, int64_t, int64_t, T*);
EQL_INSTANTIATE(float)
EQL_INSTANTIATE(double)

}  // namespace equilidar
