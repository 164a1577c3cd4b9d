#include "move_points.h"

#include "parallel.h"

namespace equilidar {

template <typename T>
void move_points_cpu(
    const T* points, int64_t num, const int64_t* offsets, int64_t num_items, const T* linear, const T* translation,
    const GridFrame<T>& grid, T* moved, bool* inside) {
  parallel_chunks(num, 1 << 14, [&](int64_t begin, int64_t end) {
    int64_t item = item_of(begin, offsets, num_items);
    for (int64_t i = begin; i < end; ++i) {
      while (item + 1 < num_items && offsets[item + 1] <= i) ++item;
      inside[i] = move_point(points + 3 * i, linear + 9 * item, translation + 3 * item, grid, moved + 3 * i);
    }
  });
}

template void move_points_cpu(
    const float*, int64_t, const int64_t*, int64_t, const float*, const float*, const GridFrame<float>&, float*, bool*);
template void move_points_cpu(
    const double*, int64_t, const int64_t*, int64_t, const double*, const double*, const GridFrame<double>&, double*,
    bool*);

}  // namespace equilidar
