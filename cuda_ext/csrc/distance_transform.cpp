#include "distance_transform.h"

#include <algorithm>
#include <vector>

#include "parallel.h"

namespace equilidar {
namespace {

constexpr int64_t kLines = 16;     // neighbouring lines handled together: a cache line of floats
constexpr double kShortReach = 6;  // cells; up to here looking outward is quicker than the envelope

// Squared distances along x, by a scan in each direction.
void first_axis(const bool* occupied, int64_t lines, int64_t n, double weight, double cap, float* squared) {
  parallel_for(lines, 256, [&](int64_t line) {
    const bool* const cells = occupied + line * n;
    float* const out = squared + line * n;
    int64_t nearest = -1;
    for (int64_t i = 0; i < n; ++i) {
      if (cells[i]) nearest = i;
      out[i] = nearest < 0 ? kInfinity<float> : static_cast<float>(i - nearest);
    }
    nearest = -1;
    for (int64_t i = n - 1; i >= 0; --i) {
      if (cells[i]) nearest = i;
      const float steps = nearest < 0 ? out[i] : std::min(out[i], static_cast<float>(nearest - i));
      out[i] = static_cast<float>(std::min(cap, weight * static_cast<double>(steps) * static_cast<double>(steps)));
    }
  });
}

// Take in an axis whose neighbours are `stride` apart, for kLines neighbouring lines at a time.
void further_axis(float* squared, int64_t total, int64_t n, int64_t stride, double weight, double cap, bool root) {
  const int64_t groups = (stride + kLines - 1) / kLines, blocks = total / (n * stride) * groups;
  const bool short_reach = cap <= weight * kShortReach * kShortReach;
  parallel_chunks(blocks, 8, [&](int64_t begin, int64_t end) {
    std::vector<float> lines(static_cast<std::size_t>(n * kLines));
    std::vector<double> out(static_cast<std::size_t>(n)), from(static_cast<std::size_t>(n));
    std::vector<int32_t> apex(static_cast<std::size_t>(n));
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block % groups * kLines, width = std::min(kLines, stride - first);
      float* const base = squared + block / groups * n * stride + first;
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t line = 0; line < width; ++line) lines[line * n + i] = base[i * stride + line];
      }
      for (int64_t line = 0; line < width; ++line) {
        const float* const f = lines.data() + line * n;
        if (short_reach) {
          for (int64_t i = 0; i < n; ++i) out[i] = nearest_along(f, 1, n, i, weight, cap);
        } else {
          envelope_along(f, n, weight, cap, out.data(), apex.data(), from.data());
        }
        for (int64_t i = 0; i < n; ++i) base[i * stride + line] = static_cast<float>(root ? std::sqrt(out[i]) : out[i]);
      }
    }
  });
}

}  // namespace

void distance_transform_cpu(
    const bool* occupied, const GridShape& shape, const double* cell_size, double max_distance, float* distance,
    Workspace&) {
  const int64_t z = shape.n[0], y = shape.n[1], x = shape.n[2], total = shape.batch * z * y * x;
  if (total == 0) return;
  const double cap = max_distance * max_distance;
  first_axis(occupied, total / x, x, cell_size[0] * cell_size[0], cap, distance);
  further_axis(distance, total, y, x, cell_size[1] * cell_size[1], cap, false);
  further_axis(distance, total, z, y * x, cell_size[2] * cell_size[2], cap, true);
}

namespace {

template <typename T, typename Body>
void for_points(const GridShape& shape, int64_t num, const int64_t* offsets, const T* field, const Body& body) {
  const int64_t cells = shape.n[0] * shape.n[1] * shape.n[2];
  parallel_chunks(num, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i, field + item_of(i, offsets, shape.batch) * cells);
  });
}

}  // namespace

template <typename T>
void sample_field_cpu(
    const T* field, const GridShape& shape, const FieldFrame<T>& frame, const T* points, int64_t num,
    const int64_t* offsets, T* values) {
  for_points(shape, num, offsets, field, [&](int64_t i, const T* own) {
    values[i] = read_field<T>(own, points + 3 * i, shape, frame, nullptr);
  });
}

template <typename T>
void sample_field_backward_cpu(
    const T* grad, const T* field, const GridShape& shape, const FieldFrame<T>& frame, const T* points, int64_t num,
    const int64_t* offsets, T* slopes) {
  for_points(shape, num, offsets, field, [&](int64_t i, const T* own) {
    read_field(own, points + 3 * i, shape, frame, slopes + 3 * i);
    for (int axis = 0; axis < 3; ++axis) slopes[3 * i + axis] *= grad[i];
  });
}

#define EQL_INSTANTIATE(T)                                                                                        \
  template void sample_field_cpu(                                                                                \
      const T*, const GridShape&, const FieldFrame<T>&, const T*, int64_t, const int64_t*, T*);                  \
  template void sample_field_backward_cpu(                                                                       \
      const T*, const T*, const GridShape&, const FieldFrame<T>&, const T*, int64_t, const int64_t*, T*);

EQL_INSTANTIATE(float)
EQL_INSTANTIATE(double)

}  // namespace equilidar
