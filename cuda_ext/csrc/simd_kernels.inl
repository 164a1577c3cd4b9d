// Bodies of ConvKernels. Included once per instruction set, inside a namespace of its own that then defines
//   Vector<T>, a VectorOf<T, bytes> with multiply_add, kTall (rows per block of one or two vectors), kWide (vectors per
//   row of a block) and kShort (rows of a block of kWide vectors).
// No standard header may be included here: an inline function of one, compiled for AVX-512 and merged by the linker with
// its namesakes, would crash older machines.

template <typename T>
struct Vector;

template <typename T, int BYTES>
struct VectorOf {
  static constexpr int kWidth = BYTES / sizeof(T);
  typedef T Type __attribute__((vector_size(BYTES)));
  typedef T Unaligned __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
  static Type load(const T* p) { return *reinterpret_cast<const Unaligned*>(p); }
  static void store(T* p, Type v) { *reinterpret_cast<Unaligned*>(p) = v; }
  static Type broadcast(T x) { return x - Type{}; }
};

// C (ROWS, VECTORS) = [C +] sum over d of a(row, d) * b(d)[vector], C in registers throughout.
template <typename T, int ROWS, int VECTORS, bool ADD, typename A, typename B>
inline __attribute__((always_inline)) void multiply_block(const A& a, const B& b, int64_t depth, T* const* c) {
  using V = Vector<T>;
  typename V::Type sums[ROWS][VECTORS];
#pragma GCC unroll 16
  for (int row = 0; row < ROWS; ++row) {
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) sums[row][v] = ADD ? V::load(c[row] + v * V::kWidth) : V::broadcast(T(0));
  }
  for (int64_t d = 0; d < depth; ++d) {
    typename V::Type columns[VECTORS];
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) columns[v] = V::load(b(d) + v * V::kWidth);
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row) {
      const typename V::Type factor = V::broadcast(a(row, d));
#pragma GCC unroll 16
      for (int v = 0; v < VECTORS; ++v) sums[row][v] = V::multiply_add(factor, columns[v], sums[row][v]);
    }
  }
#pragma GCC unroll 16
  for (int row = 0; row < ROWS; ++row) {
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) V::store(c[row] + v * V::kWidth, sums[row][v]);
  }
}

// Rows read through pointers, so that nothing is gathered into memory.
template <typename T, int ROWS>
struct Pointed {
  const T* rows[ROWS];
  T operator()(int row, int64_t d) const { return rows[row][d]; }
};

template <typename T>
struct Strided {
  const T* data;
  int64_t stride;
  const T* operator()(int64_t d) const { return data + d * stride; }
};

// Columns of rows that lie anywhere.
template <typename T>
struct Scattered {
  const T* const* rows;
  int64_t first;
  T operator()(int row, int64_t d) const { return rows[d][first + row]; }
  const T* operator()(int64_t d) const { return rows[d] + first; }
};

template <typename T>
struct RowsTask {
  const T* features;
  int64_t depth;
  const T* matrix;
  int64_t width;
  const int32_t* sources;
  const int32_t* targets;
  int64_t first;
  T* tile;
};

template <typename T, int ROWS, int VECTORS, bool LISTED>
inline __attribute__((always_inline)) void rows_block(const RowsTask<T>& task, int64_t p, int64_t column) {
  Pointed<T, ROWS> a;
  T* c[ROWS];
#pragma GCC unroll 16
  for (int row = 0; row < ROWS; ++row) {
    const int64_t source = LISTED ? task.sources[p + row] : task.first + p + row;
    const int64_t target = LISTED ? task.targets[p + row] - task.first : p + row;
    a.rows[row] = task.features + source * task.depth;
    c[row] = task.tile + target * task.width + column;
  }
  multiply_block<T, ROWS, VECTORS, LISTED>(a, Strided<T>{task.matrix + column, task.width}, task.depth, c);
}

// The last rows of a list, fewer than a block.
template <typename T, int ROWS, int VECTORS, bool LISTED>
inline void rows_rest(const RowsTask<T>& task, int64_t p, int64_t count, int64_t column) {
  if constexpr (ROWS > 0) {
    if (count == ROWS) return rows_block<T, ROWS, VECTORS, LISTED>(task, p, column);
    rows_rest<T, ROWS - 1, VECTORS, LISTED>(task, p, count, column);
  }
}

template <typename T, int ROWS, int VECTORS, bool LISTED>
void rows_columns(const RowsTask<T>& task, int64_t num_pairs, int64_t column) {
  int64_t p = 0;
  for (; p + ROWS <= num_pairs; p += ROWS) {
    if (LISTED && column == 0 && p + 2 * ROWS <= num_pairs) {
#pragma GCC unroll 16
      for (int row = 0; row < ROWS; ++row) {
        const T* next = task.features + task.sources[p + ROWS + row] * task.depth;
        for (int64_t d = 0; d < task.depth; d += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(next + d);
      }
    }
    rows_block<T, ROWS, VECTORS, LISTED>(task, p, column);
  }
  rows_rest<T, ROWS - 1, VECTORS, LISTED>(task, p, num_pairs - p, column);
}

template <typename T, bool LISTED>
void all_columns(const RowsTask<T>& task, int64_t num_pairs) {
  using V = Vector<T>;
  int64_t column = 0;
  for (; column + V::kWide * V::kWidth <= task.width; column += V::kWide * V::kWidth) {
    rows_columns<T, V::kShort, V::kWide, LISTED>(task, num_pairs, column);
  }
  if constexpr (V::kWide > 2) {
    for (; column + 2 * V::kWidth <= task.width; column += 2 * V::kWidth) {
      rows_columns<T, V::kTall, 2, LISTED>(task, num_pairs, column);
    }
  }
  for (; column < task.width; column += V::kWidth) rows_columns<T, V::kTall, 1, LISTED>(task, num_pairs, column);
}

template <typename T>
void multiply_rows(const T* features, int64_t depth, const T* matrix, int64_t width, const int32_t* sources,
                   const int32_t* targets, int64_t num_pairs, int64_t first, T* tile) {
  const RowsTask<T> task{features, depth, matrix, width, sources, targets, first, tile};
  if (sources == nullptr) {
    all_columns<T, false>(task, num_pairs);
  } else {
    all_columns<T, true>(task, num_pairs);
  }
}

template <typename T>
struct OuterTask {
  const T* const* left;
  int64_t height;
  const T* const* right;
  int64_t width, num_rows;
  T* sums;
};

template <typename T, int ROWS, int VECTORS>
inline void outer_rows(const OuterTask<T>& task, int64_t row, int64_t column) {
  T* c[ROWS];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) c[i] = task.sums + (row + i) * task.width + column;
  const Scattered<T> left{task.left, row}, right{task.right, column};
  multiply_block<T, ROWS, VECTORS, true>(left, right, task.num_rows, c);
}

template <typename T, int ROWS, int VECTORS>
void outer_columns(const OuterTask<T>& task, int64_t column) {
  int64_t row = 0;
  for (; row + ROWS <= task.height; row += ROWS) outer_rows<T, ROWS, VECTORS>(task, row, column);
  // Channels are mostly multiples of 16: what remains of them in blocks of six is four.
  if constexpr (ROWS > 4) {
    for (; row + 4 <= task.height; row += 4) outer_rows<T, 4, VECTORS>(task, row, column);
  }
  for (; row < task.height; ++row) outer_rows<T, 1, VECTORS>(task, row, column);
}

template <typename T>
void add_outer_products(const T* const* left, int64_t height, const T* const* right, int64_t width, int64_t num_rows,
                        T* sums) {
  using V = Vector<T>;
  const OuterTask<T> task{left, height, right, width, num_rows, sums};
  int64_t column = 0;
  for (; column + V::kWide * V::kWidth <= width; column += V::kWide * V::kWidth) {
    outer_columns<T, V::kShort, V::kWide>(task, column);
  }
  if constexpr (V::kWide > 2) {
    for (; column + 2 * V::kWidth <= width; column += 2 * V::kWidth) outer_columns<T, V::kTall, 2>(task, column);
  }
  for (; column < width; column += V::kWidth) outer_columns<T, V::kTall, 1>(task, column);
}
