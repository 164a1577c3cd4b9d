#include "neighbors.h"

#include "cpu_clones.h"
#include "parallel.h"

namespace equilidar {
namespace {

template <typename T>
struct Search {
  const PointTree<T>* trees;  // of each item
  const T* query;
  const T* reference;
  const int64_t* query_offsets;
  const int64_t* reference_offsets;
  int64_t num_items, k;
  T radius;
  int64_t* index;
  T* distance;

  // The farthest of the last query's neighbours bounds this one's: sweeps come in the order of the scan.
  T hint(int64_t row, int64_t first, int64_t last) const {
    const int64_t* const before = index + (row - 1) * k;
    if (before[k - 1] < first || before[k - 1] >= last) return kInfinity<T>;
    const T* const point = query + 3 * row;
    T farthest = 0;
    for (int64_t slot = 0; slot < k; ++slot) {
      const T* const other = reference + 3 * before[slot];
      farthest = max_of(farthest, squared_distance(point[0] - other[0], point[1] - other[1], point[2] - other[2]));
    }
    return reach_of(farthest);
  }

  void rows(int64_t begin, int64_t end) const {
    int64_t item = item_of(begin, query_offsets, num_items);
    for (int64_t i = begin; i < end; ++i) {
      while (item + 1 < num_items && query_offsets[item + 1] <= i) ++item;
      const int64_t first = reference_offsets[item], last = reference_offsets[item + 1];
      const T bound = i > begin ? hint(i, first, last) : kInfinity<T>;
      nearest_rows(trees[item], query + 3 * i, first, last, k, radius, bound, index + i * k, distance + i * k);
    }
  }
};

EQL_CLONES void search_rows(const Search<float>& search, int64_t begin, int64_t end) { search.rows(begin, end); }
EQL_CLONES void search_rows(const Search<double>& search, int64_t begin, int64_t end) { search.rows(begin, end); }

}  // namespace

template <typename T>
void k_nearest_cpu(
    const T* query, int64_t num_queries, const int64_t* query_offsets, const T* reference, int64_t num_references,
    const int64_t* reference_offsets, int64_t num_items, int64_t k, T radius, int64_t* index, T* distance,
    Workspace& workspace) {
  if (num_queries == 0) return;
  const std::vector<PointTree<T>> trees = build_trees_cpu(reference, reference_offsets, num_items, workspace);
  const Search<T> search{trees.data(), query,     reference, query_offsets, reference_offsets,
                         num_items,    k,         radius,    index,         distance};
  parallel_chunks(num_queries, 512, [&](int64_t begin, int64_t end) { search_rows(search, begin, end); });
}

template void k_nearest_cpu(
    const float*, int64_t, const int64_t*, const float*, int64_t, const int64_t*, int64_t, int64_t, float, int64_t*,
    float*, Workspace&);
template void k_nearest_cpu(
    const double*, int64_t, const int64_t*, const double*, int64_t, const int64_t*, int64_t, int64_t, double, int64_t*,
    double*, Workspace&);

}  // namespace equilidar
